"""Connected parts of a region, and their outlines as polygons."""

import numpy as np
import numpy.typing as npt

Ring = npt.NDArray[np.float64]
Region = npt.NDArray[np.bool_]

# Sides of a square of four neighbouring pixels, as offsets (row, column) from its top left pixel,
# doubled so that they are whole numbers.
_TOP, _RIGHT, _BOTTOM, _LEFT = (0, 1), (1, 2), (2, 1), (1, 0)
# Which of the four pixels lie inside (1 top left, 2 top right, 4 bottom right, 8 bottom left) ->
# the pieces of outline through the square, each from one side to another with the inside on the
# right. Two pixels that touch at a corner alone are not connected.
_PIECES: dict[int, tuple[tuple[tuple[int, int], tuple[int, int]], ...]] = {
    1: ((_TOP, _LEFT),),
    2: ((_RIGHT, _TOP),),
    3: ((_RIGHT, _LEFT),),
    4: ((_BOTTOM, _RIGHT),),
    5: ((_TOP, _LEFT), (_BOTTOM, _RIGHT)),
    6: ((_BOTTOM, _TOP),),
    7: ((_BOTTOM, _LEFT),),
    8: ((_LEFT, _BOTTOM),),
    9: ((_TOP, _BOTTOM),),
    10: ((_RIGHT, _TOP), (_LEFT, _BOTTOM)),
    11: ((_RIGHT, _BOTTOM),),
    12: ((_LEFT, _RIGHT),),
    13: ((_TOP, _RIGHT),),
    14: ((_LEFT, _TOP),),
}


def number_parts(region: Region) -> npt.NDArray[np.int64]:
    """Number the connected parts of a region, whose pixels touch along sides.

    Args:
        region: (height, width).

    Returns:
        (height, width): 0 outside, else the number of the part, from 1 in reading order of the
        first pixels.
    """
    # runs of pixels in a row, as positions in the flattened region; the added column parts rows
    flat = np.pad(region, ((0, 0), (0, 1))).ravel()
    width = region.shape[1] + 1
    changes = np.flatnonzero(np.diff(flat.astype(np.int8), prepend=0))
    starts, ends = changes[::2], changes[1::2]
    # each run with all runs of the next row that it touches, which are neighbours in the list
    first = np.searchsorted(ends, starts + width, side="right")
    count = np.searchsorted(starts, ends + width, side="left") - first
    upper = np.repeat(np.arange(len(starts)), count)
    lower = np.arange(len(upper)) + np.repeat(first - (np.cumsum(count) - count), count)
    # every run points to an earlier run of its part, until all point to the first
    root = np.arange(len(starts))
    while (root[upper] != root[lower]).any():
        lowest = np.minimum(root[upper], root[lower])
        np.minimum.at(root, root[upper], lowest)
        np.minimum.at(root, root[lower], lowest)
        while (root[root] != root).any():
            root = root[root]
    numbers = np.zeros(flat.shape, np.int64)
    numbers[flat] = np.repeat(np.unique(root, return_inverse=True)[1] + 1, ends - starts)
    return numbers.reshape(region.shape[0], width)[:, :-1]


def trace_rings(region: Region) -> list[Ring]:
    """Trace the closed outlines of a region halfway between its pixels and the others.

    Args:
        region: (height, width).

    Returns:
        For each outline, that of a hole too, (points, 2) of (x, y) in pixels, a pixel's middle
        being at half; the last point is the first.
    """
    padded = np.pad(region, 1).astype(np.uint8)
    squares = padded[:-1, :-1] | padded[:-1, 1:] << 1 | padded[1:, 1:] << 2 | padded[1:, :-1] << 3
    following: dict[tuple[int, int], tuple[int, int]] = {}
    rows, columns = np.nonzero((squares > 0) & (squares < 15))
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        for (down, along), (next_down, next_along) in _PIECES[int(squares[row, column])]:
            start = (2 * row + down, 2 * column + along)
            following[start] = (2 * row + next_down, 2 * column + next_along)
    rings = []
    while following:
        start = next(iter(following))
        points = [start]
        while (point := following.pop(points[-1])) != start:
            points.append(point)
        points.append(start)
        # doubled (row, column) of the padded region -> (x, y)
        rings.append(np.array(points, float)[:, ::-1] / 2 - 0.5)
    return rings


def simplify(ring: Ring, tolerance: float) -> Ring:
    """Drop points of a line that lie within a distance of it (Douglas and Peucker, 1973).

    Args:
        ring: (points, 2); the first and the last point stay.
        tolerance: the greatest distance of a dropped point from the new line.
    """
    keep = np.zeros(len(ring), bool)
    keep[[0, -1]] = True
    pending = [(0, len(ring) - 1)]
    while pending:
        first, last = pending.pop()
        if last - first < 2:
            continue
        distances = _distances(ring[first + 1 : last], ring[first], ring[last])
        farthest = int(distances.argmax())
        if distances[farthest] > tolerance:
            middle = first + 1 + farthest
            keep[middle] = True
            pending += [(first, middle), (middle, last)]
    return ring[keep]


def _distances(points: Ring, start: Ring, end: Ring) -> Ring:
    """Distances of points from the segment between two points."""
    along = end - start
    length = float(along @ along)
    share = np.clip((points - start) @ along / length, 0, 1) if length else np.zeros(len(points))
    away = points - start - share[:, None] * along
    return np.hypot(away[:, 0], away[:, 1])
