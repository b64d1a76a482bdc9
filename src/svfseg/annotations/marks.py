"""Turn marks of a person (polygons, boxes, scribbles, clicks) into masks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from svfseg.annotations.random_walk import walk_shares
from svfseg.data.images import Array
from svfseg.errors import InputError

KINDS = ("polygons", "boxes", "scribbles", "clicks", "masks")
UNKNOWN = 255
# Boxes, scribbles and clicks are grown on an image of at most this side.
_SIDE = 192
# Share of random walks that decides; between the two, a pixel stays unknown.
_IN, _OUT = 0.6, 0.4


def draw_marks(marks: Mapping[str, Any], image: Array, classes: int = 1) -> Array:
    """Draw a mask of class ids from marks, all in pixels (x, y) of the image.

    The rule. A *polygon* is its inside. All else is grown by random walks (Grady, PAMI 2006)
    over the image's colours from seeds: for a *box* the middle half of it is the
    class, all outside is not; a *scribble* (a line of points) and a *click* are the class where
    drawn, and the image's border is not; where marks of another class or of background say what is
    not, only the border beyond a tenth of the image from any mark of the class. A pixel whose walks
    end in the class with more than 0.6 belongs to it, with 0.4 to 0.6 it is unknown (255).
    Later kinds lie over earlier ones: grown regions first, then masks, polygons last.

    Args:
        marks: kind -> list of marks, of "polygons" and "scribbles" (lists of points), "boxes"
            (left, top, right, bottom), "clicks" (points), "masks" ({"mask": (rows, columns),
            "points": [its left upper corner]}). A mark may be {"points": ..., "class": id}; else it
            is of class 1. Class 0 marks background.
        image: (height, width, 3).
        classes: number of classes.

    Returns:
        (height, width) uint8: 0, class ids, 255 unknown.

    Raises:
        InputError: unknown kinds, a class out of range, or marks outside the image.

    Example:
        >>> import numpy as np
        >>> image = np.zeros((20, 30, 3), np.uint8)
        >>> square = [[5, 5], [15, 5], [15, 15], [5, 15]]
        >>> mask = draw_marks({"polygons": [{"points": square, "class": 2}]}, image, classes=2)
        >>> int(mask[10, 10]), int(mask[2, 2])
        (2, 0)
    """
    unknown = [kind for kind in marks if kind not in KINDS]
    if unknown:
        raise InputError(f"unknown kind of marks {unknown[0]}: expected {', '.join(KINDS)}")
    height, width = image.shape[:2]
    points_of = {kind: [_read(m, kind, classes, (width, height)) for m in marks.get(kind, ())]
             for kind in KINDS if kind != "masks"}  # fmt: skip
    mask = np.zeros((height, width), np.uint8)
    grown = [(k, c, p) for k in ("boxes", "scribbles", "clicks") for c, p in points_of[k]]
    for class_id in sorted({c for _, c, _ in grown if c}):
        region = _grow(image, grown, class_id)
        mask[region == 1] = class_id
        mask[(region == UNKNOWN) & (mask == 0)] = UNKNOWN
    for part in marks.get("masks", ()):
        _paste(mask, part, classes)
    drawn = Image.fromarray(mask)
    for class_id, points in points_of["polygons"]:
        if len(points) < 3:
            raise InputError(f"a polygon has {len(points)} points: expected 3 or more")
        ImageDraw.Draw(drawn).polygon([tuple(p) for p in points], fill=class_id)
    return np.asarray(drawn)


def least_points(kind: str) -> int:
    """Give the fewest points of a mark of a kind."""
    return {"polygons": 3, "boxes": 2}.get(kind, 1)


def _paste(mask: Array, part: Mapping[str, Any], classes: int) -> None:
    """Draw a mask at its corner, cut off where the image ends."""
    class_id = _class_of(part, classes)
    (left, top), inside = np.rint(part["points"][0]).astype(int), np.asarray(part["mask"]) > 0
    x, y = max(0, int(left)), max(0, int(top))
    inside = inside[
        y - int(top) : mask.shape[0] - int(top), x - int(left) : mask.shape[1] - int(left)
    ]
    mask[y : y + inside.shape[0], x : x + inside.shape[1]][inside] = class_id


def _class_of(mark: Mapping[str, Any], classes: int) -> int:
    try:
        class_id = int(mark.get("class", 1))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"a mark is of class {mark['class']!r}: expected a number") from error
    if not 0 <= class_id <= classes:
        raise InputError(f"a mark is of class {class_id}: expected 0 (background) to {classes}")
    return class_id


def _read(
    mark: Any, kind: str, classes: int, size: tuple[int, int]
) -> tuple[int, list[tuple[float, float]]]:
    class_id, points = 1, mark
    if isinstance(mark, Mapping):
        if "points" not in mark:
            raise InputError(f"a mark of {kind} has no points")
        class_id, points = _class_of(mark, classes), mark["points"]
    try:
        flat = np.asarray(points, float).reshape(-1)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"a mark of {kind} has {str(points)[:60]}: expected points (x, y)"
        ) from error
    if not np.isfinite(flat).all():
        raise InputError(f"a mark of {kind} has points that are not finite numbers")
    if kind == "boxes" and flat.size != 4:
        raise InputError(f"a box has {flat.size} numbers: expected left, top, right, bottom")
    if flat.size < 2 or flat.size % 2:
        raise InputError(f"a mark of {kind} has {flat.size} numbers: expected points (x, y)")
    pairs = [(float(x), float(y)) for x, y in flat.reshape(-1, 2)]
    if not any(0 <= x <= size[0] and 0 <= y <= size[1] for x, y in pairs):
        raise InputError(f"a mark of {kind} lies outside the image of {size[0]}x{size[1]}")
    return class_id, pairs


def _grow(
    image: Array, marks: Sequence[tuple[str, int, list[tuple[float, float]]]], class_id: int
) -> Array:
    """0, 1 and 255 by random walks from the marks of a class against all others."""
    height, width = image.shape[:2]
    ratio = min(1.0, _SIDE / max(height, width))
    size = (max(8, round(width * ratio)), max(8, round(height * ratio)))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX), float) / 255
    seeds = Image.new("L", size)  # 0 to be decided, 1 the class, 2 not
    pen = ImageDraw.Draw(seeds)
    scale = np.array([size[0] / width, size[1] / height])
    boxes = [np.array(p) * scale for k, c, p in marks if k == "boxes" and c == class_id]
    others = any(c != class_id for _, c, _ in marks)
    own = [tuple(p) for k, c, m in marks if c == class_id for p in np.array(m) * scale]
    if boxes:
        pen.rectangle((0, 0, *size), fill=2)
        for box in boxes:
            pen.rectangle(_ordered(box), fill=0)
        for box in boxes:
            low, high = box.min(axis=0), box.max(axis=0)
            pen.ellipse((*(low + (high - low) / 4), *(high - (high - low) / 4)), fill=1)
    else:
        pen.rectangle((0, 0, size[0] - 1, size[1] - 1), outline=2)
        for x, y in own if others else ():  # the class may reach the border where it is marked
            near = max(size) / 10
            pen.rectangle((x - near, y - near, x + near, y + near), fill=0)
    for kind, owner, points in marks:
        scaled = np.array(points) * scale
        value = 1 if owner == class_id else 2
        if kind == "boxes":
            if owner != class_id:
                pen.rectangle(_ordered(scaled), fill=2)
            continue
        if kind == "scribbles" and len(scaled) > 1:
            pen.line([tuple(p) for p in scaled.tolist()], fill=value, width=2)
        else:
            for x, y in scaled.tolist():
                pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=value)
    labels = np.asarray(seeds)
    walks = walk_shares(small, labels == 1, labels == 2)
    share = np.asarray(
        Image.fromarray(walks.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    )
    return np.where(share > _IN, 1, np.where(share < _OUT, 0, UNKNOWN)).astype(np.uint8)


def _ordered(corners: npt.NDArray[np.float64]) -> tuple[float, float, float, float]:
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return left, top, right, bottom
