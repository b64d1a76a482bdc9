"""Read marks from files: those of labelme, and JSON files with marks."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from svfseg.annotations.marks import KINDS
from svfseg.data.images import Array
from svfseg.errors import InputError, MissingFileError

# labelme's shapes as marks; its circle is drawn as a polygon.
_KINDS = {
    "polygon": "polygons",
    "circle": "polygons",
    "rectangle": "boxes",
    "linestrip": "scribbles",
    "line": "scribbles",
    "point": "clicks",
    "points": "clicks",
}
_BACKGROUND = ("background", "_background_")
_CORNERS = 64

Marks = dict[str, list[dict[str, Any]]]


def read_marks(path: str | Path, names: Sequence[str], image: Array | None = None) -> Marks:
    """Read the marks of a file, for `svfseg.annotations.marks.draw_marks`.

    Either labelme's (its shapes by their labels), or a JSON object of kinds of marks, each mark's
    class a name or an id. What is labelled as something else than the classes is left out;
    "background" says what is none of them.

    Args:
        path: path of the file.
        names: names of the classes 1, 2 ...
        image: whose marks they are; a labelme file must be of its size.

    Raises:
        MissingFileError: no such file.
        InputError: no marks, of another image size, or none of the classes.
    """
    content = _read(path)
    if "shapes" in content:
        _check_size(path, content, image)
        listed = [_of_shape(path, shape) for shape in content["shapes"]]
    else:
        listed = [(kind, mark) for kind in content for mark in _own(content[kind])]
    ids = {"background": 0, "_background_": 0}
    ids |= {name: i for i, name in enumerate(names, start=1)}
    marks_by_kind: Marks = {}
    for kind, mark in listed:
        owner = mark["class"]
        class_id = owner if isinstance(owner, int) else ids.get(str(owner))
        if class_id is not None:
            marks_by_kind.setdefault(kind, []).append({"points": mark["points"], "class": class_id})
    if not any(mark["class"] for marks in marks_by_kind.values() for mark in marks):
        labels = sorted({str(mark["class"]) for _, mark in listed})
        raise InputError(
            f"{path} marks {', '.join(labels) or 'nothing'}: expected {' or '.join(names)} "
            "(the names of the classes)"
        )
    return marks_by_kind


def marked_labels(path: str | Path) -> list[str]:
    """List the names of the classes in a file of marks, in the order in which they come.

    Raises:
        MissingFileError: no such file.
        InputError: no marks.
    """
    content = _read(path)
    if "shapes" in content:
        owners = [str(shape.get("label")) for shape in content["shapes"]]
    else:
        owners = [str(mark["class"]) for kind in content for mark in _own(content[kind])
                  if not isinstance(mark["class"], int)]  # fmt: skip
    return [name for name in dict.fromkeys(owners) if name not in _BACKGROUND]


def _read(path: str | Path) -> dict[str, Any]:
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no marks at {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path} is not JSON ({error}): expected marks, or a labelme file"
        ) from None
    if not isinstance(content, dict) or not ("shapes" in content or content.keys() & set(KINDS)):
        raise InputError(f"{path} holds no marks: expected a labelme file, or {', '.join(KINDS)}")
    return content


def _own(marks: Any) -> list[dict[str, Any]]:
    return [
        {"class": 1, **mark} if isinstance(mark, Mapping) else {"points": mark, "class": 1}
        for mark in marks
    ]


def _of_shape(path: str | Path, shape: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    kind, points = shape.get("shape_type", "polygon"), shape.get("points", [])
    if kind not in _KINDS:
        raise InputError(
            f"{path} has a shape of type {kind}: expected {', '.join(_KINDS)}; save it as a mask"
        )
    if kind == "circle":
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        turns = [2 * math.pi * i / _CORNERS for i in range(_CORNERS)]
        points = [(x + radius * math.cos(t), y + radius * math.sin(t)) for t in turns]
    return _KINDS[kind], {"points": points, "class": str(shape.get("label"))}


def _check_size(path: str | Path, content: Mapping[str, Any], image: Array | None) -> None:
    size = content.get("imageHeight"), content.get("imageWidth")
    if image is not None and None not in size and size != image.shape[:2]:
        raise InputError(
            f"{path} was drawn on an image of {size[1]}x{size[0]}, this one has "
            f"{image.shape[1]}x{image.shape[0]}: mark it again, or give the image that was marked"
        )
