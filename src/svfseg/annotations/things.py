"""Find the connected parts of masks, and their outlines."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from svfseg.annotations.outlines import Ring, number_parts, simplify, trace_rings
from svfseg.data.images import Array

# Corners of an outline may lie off it by this, in pixels.
TOLERANCE = 0.75
# Smaller specks are no objects of their own.
LEAST_AREA = 16


class Thing(NamedTuple):
    """A connected part of a class.

    Attributes:
        class_id: id of the class.
        part: (rows, columns) bool, of the part's own box.
        corner: (left, top) of that box in the image.
        outer: (points, 2) of (x, y), its outline in pixels of the image.
        holes: the same for each hole.
    """

    class_id: int
    part: npt.NDArray[np.bool_]
    corner: tuple[int, int]
    outer: Ring
    holes: list[Ring]


def things(mask: Array) -> list[Thing]:
    """Find the connected parts of every class, with their outlines; specks are left out.

    Args:
        mask: (height, width) of ids, 0 being background.
    """
    result = []
    for class_id in sorted(set(np.unique(mask).tolist()) - {0, 255}):
        numbered = number_parts(mask == class_id)
        for number, box in enumerate(_boxes(numbered), start=1):
            part = numbered[box] == number
            if part.sum() < LEAST_AREA:
                continue
            corner = (box[1].start, box[0].start)
            rings = [
                np.clip(simplify(ring, TOLERANCE), 0, part.shape[::-1]) + corner
                for ring in trace_rings(part)
            ]
            rings = sorted((r for r in rings if len(r) > 3), key=lambda ring: -abs(_area(ring)))
            if rings:
                result.append(Thing(class_id, part, corner, rings[0], rings[1:]))
    return result


def count_specks(mask: Array) -> int:
    """Count the connected parts that `things` leaves out.

    Args:
        mask: (height, width) of ids, 0 being background.
    """
    return sum(
        int((np.bincount(number_parts(mask == class_id).ravel())[1:] < LEAST_AREA).sum())
        for class_id in set(np.unique(mask).tolist()) - {0, 255}
    )


def opened(outer: Ring, holes: list[Ring]) -> Ring:
    """Cut an outline open to its holes, so that one ring goes around all of the part.

    Args:
        outer: (points, 2), the last point being the first.
        holes: the same for each hole.

    Returns:
        (points, 2); the last point is not the first.
    """
    ring = outer[:-1]
    for hole in sorted(holes, key=lambda each: float(each[:, 0].min())):
        inner = hole[:-1]
        apart = ((ring[:, None] - inner[None]) ** 2).sum(axis=2)
        at, first = np.unravel_index(int(apart.argmin()), apart.shape)
        around = np.roll(inner, -int(first), axis=0)
        ring = np.concatenate([ring[: at + 1], around, around[:1], ring[at:]])
    return ring


def _boxes(numbered: npt.NDArray[np.int64]) -> list[tuple[slice, slice]]:
    """Rows and columns that each part fills, in the order of the numbers."""
    rows, columns = np.nonzero(numbered)
    numbers = numbered[rows, columns] - 1
    count = int(numbered.max())
    sides = []
    for places in (rows, columns):
        low, high = np.full(count, numbered.size), np.full(count, -1)
        np.minimum.at(low, numbers, places)
        np.maximum.at(high, numbers, places)
        sides.append([slice(a, b + 1) for a, b in zip(low.tolist(), high.tolist(), strict=True)])
    return list(zip(*sides, strict=True))


def _area(ring: Ring) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)
