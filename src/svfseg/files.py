"""Files written whole or not at all, and where derived data and packaged data lie."""

import importlib
import json
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from svfseg.errors import InputError, MissingFileError

# Ends of lists of images and masks.
LIST_ENDS = (".csv", ".tsv", ".txt")


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, whatever the system's own encoding; a byte order mark may say 16.

    Raises:
        MissingFileError: there is no such file.
        InputError: it is not text in UTF-8.
    """
    if not path.exists():
        raise MissingFileError(f"no file at {path}")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file: give another one")
    data = path.read_bytes()
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        return data.decode("utf-16" if wide else "utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8: save it in that encoding") from error


def parse_json(text: str | bytes, name: str = "it") -> Any:
    """Read the value of a JSON text, which may be anybody's.

    Args:
        text: the text.
        name: what it is called in messages.

    Raises:
        InputError: it is not JSON, or so deep or long that it cannot be read.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits are one too
        raise InputError(f"{name} is not JSON ({error})") from error


def read_json(path: Path) -> Any:
    """Read the value of a JSON file.

    Raises:
        MissingFileError: there is no such file.
        InputError: it is not JSON.
    """
    text = read_text(path)
    try:
        return parse_json(text)
    except InputError as error:
        raise InputError(f"{path} is damaged: {error}") from error


def read_json_lines(path: Path) -> list[Any]:
    """Read a file with one JSON value per line; a last line that a stop cut off is left out.

    Raises:
        MissingFileError: there is no such file.
        InputError: a line before the last is not JSON.
    """
    lines = [line for line in read_text(path).splitlines(keepends=True) if line.strip()]
    values = []
    for number, line in enumerate(lines, start=1):
        try:
            values.append(parse_json(line))
        except InputError as error:
            if number == len(lines):
                break
            raise InputError(f"{path} is damaged, line {number}: {error}") from error
    return values


def check_output_file(path: Path) -> None:
    """Find out before any work whether a file can be written as a whole.

    Raises:
        InputError: there is a folder, a device, a pipe or a socket at the path, or its folder
            cannot be written.
    """
    target = _target_file(path)
    if not target.exists():
        check_output_folder(target.parent)
    elif not os.access(target.parent, os.W_OK | os.X_OK):
        raise InputError(f"the folder {target.parent} cannot be written: choose another one")


def check_output_folder(path: Path) -> None:
    """Find out before any work whether a folder is there and can be written, or can be made.

    Raises:
        InputError: something else is at the path, or it cannot be written.
    """
    existing = _resolved(path)
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        what = "a file" if existing == path else f"in {existing}, which is a file"
        raise InputError(f"{path} is {what}: give a folder, or choose another place")
    try:
        descriptor, probe = tempfile.mkstemp(prefix=".svfseg-", dir=existing)
        os.close(descriptor)
        os.unlink(probe)
    except OSError as error:
        raise InputError(
            f"the folder {existing} cannot be written ({error.strerror}): choose another one, or "
            "change its permissions"
        ) from error


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Write a fresh file, which takes the place of ``path`` if all went well.

    A symbolic link keeps pointing where it points, and that file is replaced, with its mode.

    Yields:
        A path beside the target. On an exception it is removed and the target stays.

    Raises:
        InputError: there is a folder, a device, a pipe or a socket at the path.
    """
    target = _target_file(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = _fresh_beside(target)
    try:
        yield fresh
        if target.exists():
            fresh.chmod(stat.S_IMODE(target.stat().st_mode))
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 with plain newlines, whole or not at all: see `replace_file`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: see `replace_file`."""
    with replace_file(path) as fresh:
        fresh.write_bytes(data)


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file in UTF-8; it is on its way to the disk when this returns."""
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(line + "\n")


def write_json(path: Path, value: Any, indent: int | None = 1) -> None:
    """Write a JSON file whole or not at all: see `replace_file`."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Write into a fresh folder, which takes the place of ``path`` if all went well.

    A symbolic link keeps pointing where it points, and that folder is replaced.

    Yields:
        An empty folder beside the target. On an exception it is removed and the target stays.

    Raises:
        InputError: there is something other than a folder at the path.
    """
    target = _resolved(path)
    if target.exists() and not target.is_dir():
        raise InputError(f"{path} is not a folder: choose another place")
    target.parent.mkdir(parents=True, exist_ok=True)
    settle_folder(path)
    fresh, old = (target.with_name(f".{target.name}.{os.getpid()}.{end}") for end in ("new", "old"))
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir()
        yield fresh
        if target.exists():
            target.rename(old)
        fresh.rename(target)
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def settle_folder(path: Path) -> None:
    """Put back what a process that was killed in `replace_folder` moved away, and remove its rest.

    Whoever reads such a folder calls this first: between the two renames the folder is not there.

    Args:
        path: the folder.
    """
    target = _resolved(path)
    if not target.parent.is_dir():
        return
    start = f".{target.name}."
    for left in sorted(target.parent.iterdir(), reverse=True):  # .old before .new
        owner, _, end = left.name.removeprefix(start).partition(".")
        is_rest = left.name.startswith(start) and owner.isdigit() and end in ("old", "new")
        if not is_rest or _is_alive(int(owner), left):
            continue
        if end == "old" and not target.exists():
            left.rename(target)
        else:
            shutil.rmtree(left, ignore_errors=True)


def remove_rests(folder: Path) -> None:
    """Remove the unfinished files that killed processes left in a folder (see `replace_file`).

    Args:
        folder: the folder; it need not be there.
    """
    for left in folder.glob(".svfseg-*-*") if folder.is_dir() else ():
        owner = left.name.split("-")[1]
        if owner.isdigit() and not _is_alive(int(owner), left):
            left.unlink(missing_ok=True)


def _is_alive(process: int, left: Path) -> bool:
    """Whether a process that wrote a folder still runs."""
    if process == os.getpid():
        return True
    if os.name == "nt":  # there a signal of 0 would end it
        return time.time() - left.stat().st_mtime < _LONG
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


_LONG = 3600.0  # seconds that nobody needs to write a folder


def _resolved(path: Path) -> Path:
    """Follow a symbolic link; other paths stay as they are.

    Raises:
        InputError: the link points at itself.
    """
    if not path.is_symlink():
        return path
    try:
        return path.resolve()
    except (RuntimeError, OSError) as error:  # RuntimeError before Python 3.13
        raise InputError(f"{path} is a link that points at itself: choose another place") from error


def _target_file(path: Path) -> Path:
    """Give the file that is written when a path is: the target of a link.

    Raises:
        InputError: there is something at the path that is not a regular file.
    """
    target = _resolved(path)
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return target
    except NotADirectoryError as error:
        raise InputError(f"{path} lies in a file, not in a folder: choose another place") from error
    if not stat.S_ISREG(mode):
        kind = next((name for test, name in _KINDS if test(mode)), "not a regular file")
        raise InputError(f"{path} is {kind}: give a file to write")
    return target


_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


def _fresh_beside(target: Path) -> Path:
    """Name a new file in the folder of a target; short, as the target's name may be the longest."""
    return target.with_name(f".svfseg-{os.getpid()}-{secrets.token_hex(4)}")


def cache_folder() -> Path:
    """Find the folder of derived data: $SVFSEG_CACHE, or svfseg in the user's cache folder."""
    own = os.environ.get("SVFSEG_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(base) / "svfseg"


def packaged(module: str, package: str, name: str, extra: str) -> Path:
    """Find a file that another package carries.

    Args:
        module: the module of that package, which is imported.
        package: the package's name, for the message.
        name: the file's path inside the module's folder.
        extra: the extra of svfseg that installs the package, for the message.

    Raises:
        InputError: the package or the file is not there.
    """
    try:
        folder = importlib.import_module(module).__path__[0]
    except ImportError as error:
        raise InputError(
            f"the package {package} is not installed: pip install 'svfseg[{extra}]'"
        ) from error
    path = Path(folder) / name
    if not path.is_file():
        raise InputError(f"the package {package} has no {name}: install another version of it")
    return path
