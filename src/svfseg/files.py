"""Files written whole or not at all, and where derived data and packaged data lie."""

import importlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from svfseg.errors import InputError, MissingFileError


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, whatever the system's own encoding.

    Raises:
        MissingFileError: there is no such file.
        InputError: it is not text in UTF-8.
    """
    if not path.exists():
        raise MissingFileError(f"no file at {path}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8: save it in that encoding") from error


def read_json(path: Path) -> Any:
    """Read the value of a JSON file.

    Raises:
        MissingFileError: there is no such file.
        InputError: it is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is damaged: it is not JSON ({error})") from error


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
            values.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise InputError(f"{path} is damaged: line {number} is not JSON ({error})") from error
    return values


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """A fresh file to write, which takes the place of ``path`` if all went well.

    Yields:
        A path beside ``path``. On an exception it is removed and ``path`` stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield fresh
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """A fresh folder to write into, which takes the place of ``path`` if all went well.

    Yields:
        An empty folder beside ``path``. On an exception it is removed and ``path`` stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh, old = (path.with_name(f".{path.name}.{os.getpid()}.{end}") for end in ("new", "old"))
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir()
        yield fresh
        if path.exists():
            path.rename(old)
        fresh.rename(path)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def cache_folder() -> Path:
    """Where derived data is remembered: $SVFSEG_CACHE, or svfseg in the user's cache folder."""
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
