"""Read lists of supports: tables of images and masks, as table programs save them."""

import csv
from collections.abc import Sequence
from pathlib import Path

from svfseg.errors import InputError, MissingFileError
from svfseg.files import read_text

# What parts the columns of a table, in the order in which it is taken where several could.
_DELIMITERS = ("\t", ";", ",")


def read_list(path: Path) -> tuple[list[Path], list[Path | None]]:
    """Read rows of an image and its mask, with paths as they are or beside the list.

    Columns are parted by tabs, semicolons or commas, in a .txt by blanks too. A row without a mask
    is an image without any class; lines that begin with # are comments, and the first row may be a
    heading.

    Args:
        path: path of the list.

    Raises:
        MissingFileError: no such list, or a file that it names is not there.
        InputError: not text, or no images.
    """
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    lines = [line for line in lines if not line.lstrip().startswith("#")]
    try:
        rows = _rows(lines, blanks=path.suffix.lower() == ".txt")
    except csv.Error as error:  # a field of more than 131,072 characters
        raise InputError(
            f"{path} cannot be read ({error}): expected image,mask per line"
        ) from error
    images: list[Path] = []
    masks: list[Path | None] = []
    swapped = False
    for number, row in enumerate(rows, start=1):
        words = [word.strip() for word in row]
        if not any(words):
            continue
        if number == 1 and _is_heading(words, path):
            swapped = "mask" in words[0].casefold()
            continue
        image, mask, *more = [*words, ""]
        if swapped:
            image, mask = mask, image
        if not image or any(more):
            raise InputError(
                f"{path} has {', '.join(words)!r:.80} in its row {number}: expected an image and "
                "a mask, or an image alone"
            )
        files = _placed([word for word in (image, mask) if word], path)
        for file in files:
            if not file.exists():
                raise MissingFileError(f"{path} names {file} in its row {number}: it is not there")
        images.append(files[0])
        masks.append(files[1] if len(files) > 1 else None)
    if not images:
        raise InputError(f"{path} lists no images: expected image,mask per line")
    return images, masks


def _rows(lines: Sequence[str], blanks: bool) -> list[list[str]]:
    for delimiter in (*_DELIMITERS, *(" " if blanks else "")):
        rows = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True))
        if any(len([word for word in row if word.strip()]) > 1 for row in rows):
            return rows
    return [[line] for line in lines]


def _is_heading(words: Sequence[str], path: Path) -> bool:
    return not Path(words[0]).suffix and not _placed(words[:1], path)[0].exists()


def _placed(names: Sequence[str], path: Path) -> list[Path]:
    """Find the files of a row: all beside the list, or all below the present folder."""
    beside, here = [path.parent / name for name in names], [Path(name) for name in names]
    return here if all(p.exists() for p in here) and not all(p.exists() for p in beside) else beside
