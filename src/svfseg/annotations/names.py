"""Names that files can have: those of classes, and those of masks."""

import hashlib
import os
from collections.abc import Sequence

from svfseg.errors import InputError

# Files of several images, by the format that writes them.
SHARED = {"coco": "coco.json", "yolo": "labels/classes.txt"}
# The longest name that file systems take, in bytes, and the longest end that is added to a stem.
_NAME_BYTES, _END_BYTES = 255, len("_overlay.jpg")


def class_names(names: Sequence[str]) -> tuple[str, ...]:
    """Check names of classes, and strip blanks around them.

    Args:
        names: as given, in the order of the ids 1, 2 ...

    Raises:
        InputError: none, more than 254, one that is empty or holds a line break or what no text
            holds, or one name twice.

    Example:
        >>> class_names([" crack ", "leaf"])
        ('crack', 'leaf')
    """
    cleaned = tuple(str(name).strip() for name in names)
    if not cleaned:
        raise InputError("there are no names of classes: give one or more", settings=("classes",))
    if len(cleaned) > 254:
        raise InputError(f"found {len(cleaned)} classes: expected at most 254")
    for name in cleaned:
        if not name:
            raise InputError("a class has an empty name: give each a name", settings=("classes",))
        if any(not each.isprintable() for each in name):
            raise InputError(
                f"the class {name!r} holds a line break or another character that cannot be "
                "printed: give it another name", settings=("classes",),
            )  # fmt: skip
    doubled = next((name for name in cleaned if cleaned.count(name) > 1), None)
    if doubled is not None:
        raise InputError(f"two classes are called {doubled}: expected different names",
                         settings=("classes",))  # fmt: skip
    return cleaned


def stem_for(image: str, formats: Sequence[str]) -> str:
    """Give the name, without its end, that the files of an image get.

    It is the image's own, unless it is too long, is nothing but dots, or is the name of a file of a
    format itself.

    Args:
        image: name of the image's file, without folders.
        formats: the formats that are written.

    Example:
        >>> stem_for("photo.jpg", ["yolo"]), stem_for("classes.png", ["yolo"])
        ('photo', 'classes_')
    """
    end = os.path.splitext(image)[1]
    stem = image.removesuffix(end)
    taken = {os.path.splitext(os.path.basename(SHARED[f]))[0] for f in formats if f in SHARED}
    if not stem.strip("."):
        stem = f"image_{_short(image)}"
    elif stem.casefold() in taken:
        stem = f"{stem}_"
    while len(os.fsencode(stem)) + _END_BYTES > _NAME_BYTES:
        keep = os.fsencode(stem)[: _NAME_BYTES - _END_BYTES - 9]
        stem = f"{keep.decode('utf-8', 'ignore')}_{_short(image)}"
    return stem


def _short(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:8]
