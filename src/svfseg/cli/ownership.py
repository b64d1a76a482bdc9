"""Tell files of svfseg from files of others, so that no command replaces what is not its own."""

import json
import os
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from svfseg.errors import InputError
from svfseg.files import check_output_file

EXPORTED = ("query.onnx", "query_int8.onnx", "query.xml", "query.bin", "task.json", "example.py")


def check_replaceable(
    path: Path, is_own: Callable[[Path], bool], inputs: Iterable[Path], overwrite: bool
) -> None:
    """Find out before any work whether a command may write a file.

    Args:
        path: the file.
        is_own: whether a file at the path is one that the same command wrote.
        inputs: files that this call reads.
        overwrite: replace files of others too; what is read is never replaced.

    Raises:
        InputError: it cannot be written, is read, or is somebody else's.
    """
    check_output_file(path)
    if not path.exists():
        return
    target = path.resolve()
    if any(each.resolve() == target for each in inputs):
        raise InputError(f"{path} is read by this command, and would be replaced: choose another "
                         "file", settings=("out",))  # fmt: skip
    if not overwrite and not is_own(path):
        raise InputError(
            f"{path} is there already, and was not written by this command: choose another file",
            settings=("out", "overwrite"),
        )


def is_task(path: Path) -> bool:
    """Whether a file is a task that `svfseg fit` wrote."""
    try:
        with zipfile.ZipFile(path) as file:
            return "task.json" in file.namelist()
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile):
        return False


def is_report(path: Path) -> bool:
    """Whether a file is a page that `svfseg report` wrote."""
    try:
        with path.open("rb") as file:
            return b"svfseg report" in file.read(2000)
    except OSError:
        return False


def lies_in_predictions(path: Path) -> bool:
    """Whether a file is in a folder that `svfseg predict` keeps a log in."""
    return (path.parent / "predictions.jsonl").is_file()


def check_export_folder(out: Path, overwrite: bool) -> None:
    """Find out whether `svfseg export` may write its files to a folder.

    Raises:
        InputError: some of them are there, and are somebody else's.
    """
    there = [out / name for name in EXPORTED if os.path.lexists(out / name)]
    if not there or overwrite or _is_export(out / "task.json"):
        return
    raise InputError(
        f"{there[0]} is there already, and was not written by this command: choose another folder",
        settings=("out", "overwrite"),
    )


def _is_export(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"classes", "rules", "size"} <= content.keys()


def files_below(places: Sequence[Path]) -> list[Path]:
    """List files, and those in folders, of what a command was given to read."""
    found: list[Path] = []
    for place in places:
        found += [p for p in place.rglob("*") if p.is_file()] if place.is_dir() else [place]
    return found
