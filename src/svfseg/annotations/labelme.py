"""Read the shapes of labelme's files, and of programs that write such files, as marks."""

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from svfseg.data.images import Array, decoded
from svfseg.data.opening import open_picture
from svfseg.errors import InputError

# Shapes as marks. What has four corners is a polygon; so is a circle, once its outline is drawn.
_KINDS = {
    "polygon": "polygons",
    "oriented_rectangle": "polygons",
    "rotation": "polygons",
    "quadrilateral": "polygons",
    "circle": "polygons",
    "rectangle": "boxes",
    "linestrip": "scribbles",
    "line": "scribbles",
    "point": "clicks",
    "points": "clicks",
    "mask": "masks",
}
_CORNERS = 64
# The most pixels that a shape's own mask may have.
_MOST = 200_000_000

Mark = tuple[str, dict[str, Any]]


class DegenerateShapeError(InputError):
    """A shape that marks nothing: too few points, or all of them outside of the image."""


def label_of(shape: Mapping[str, Any]) -> str:
    """Give the label of a shape, without blanks around it."""
    return str(shape.get("label")).strip()


def check_shapes(content: Mapping[str, Any], path: object) -> list[Mapping[str, Any]]:
    """List the shapes of a labelme file.

    Raises:
        InputError: they are no list of objects.
    """
    shapes = content["shapes"]
    if not isinstance(shapes, list):
        raise InputError(f"{path} is damaged: its shapes are {type(shapes).__name__}, not a list")
    for number, shape in enumerate(shapes, start=1):
        if not isinstance(shape, dict):
            raise InputError(
                f"{path} is damaged: its shape {number} is {type(shape).__name__}, not an object"
            )
    return shapes


def check_size(content: Mapping[str, Any], image: Array, path: object) -> None:
    """Raise InputError if a labelme file was drawn on an image of another size."""
    size = content.get("imageHeight"), content.get("imageWidth")
    if None not in size and tuple(map(_side, size)) != image.shape[:2]:
        raise InputError(
            f"{path} was drawn on an image of {size[1]}x{size[0]}, this one has "
            f"{image.shape[1]}x{image.shape[0]}: mark it again, or give the image that was marked"
        )


def _side(value: Any) -> Any:
    """A side as a number, where a program wrote it as text."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return value


def mark_of(shape: Mapping[str, Any], name: str) -> Mark:
    """Turn a shape into a kind of mark and its points (or its mask), of `draw_marks`.

    Args:
        shape: with shape_type, points and, for a mask, a PNG in base64.
        name: name of the shape, for messages.

    Raises:
        DegenerateShapeError: too few points.
        InputError: an unknown type, or what are no points.
    """
    kind = shape.get("shape_type") or "polygon"
    if not isinstance(kind, str) or kind not in _KINDS:
        raise InputError(
            f"{name} is of the type {kind}: expected {', '.join(_KINDS)}; save it as a mask"
        )
    points = points_of(shape.get("points"), name)
    if kind == "mask":
        return "masks", {"mask": _decoded_mask(shape.get("mask"), name), "points": points[:1]}
    if kind == "circle":
        if len(points) != 2:
            raise DegenerateShapeError(f"{name} is a circle of {len(points)} point(s), not of 2")
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        turns = [2 * math.pi * i / _CORNERS for i in range(_CORNERS)]
        points = [(x + radius * math.cos(t), y + radius * math.sin(t)) for t in turns]
    if kind == "rectangle" and len(points) > 2:  # some programs store all four corners
        columns, rows = zip(*points, strict=True)
        points = [(min(columns), min(rows)), (max(columns), max(rows))]
    return _KINDS[kind], {"points": points}


def points_of(points: Any, name: str) -> list[tuple[float, float]]:
    """Read points (x, y); of longer ones the first two numbers count.

    Raises:
        InputError: what are no pairs of finite numbers.
    """
    if not isinstance(points, Sequence) or isinstance(points, str):
        raise InputError(f"{name} has no list of points")
    pairs = []
    for point in points:
        numbers = list(point) if isinstance(point, Sequence) and not isinstance(point, str) else []
        good = len(numbers) >= 2 and all(
            isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) < 1e9
            for v in numbers[:2]
        )
        if not good:
            raise InputError(f"{name} has the point {str(point)[:60]}: expected two numbers (x, y)")
        pairs.append((float(numbers[0]), float(numbers[1])))
    return pairs


def _decoded_mask(text: Any, name: str) -> Array:
    try:
        data = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise InputError(f"{name} holds no mask in base64") from error
    with open_picture(data, f"the mask of {name}", None, _MOST) as image:
        values = decoded(lambda: np.asarray(image.convert("L")), name)
    return (values > 0).astype(np.uint8)
