"""COCO's run lengths of masks, plain and compressed to text as pycocotools has them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from svfseg.errors import InputError

_FIRST = 48  # the digit 0
_MOST_BITS = 60


def run_lengths(
    part: npt.NDArray[np.bool_],
    corner: tuple[int, int] = (0, 0),
    size: tuple[int, int] | None = None,
) -> list[int]:
    """Encode a mask as run lengths, column by column, background first.

    Args:
        part: (rows, columns), the mask, or a box of it outside of which nothing is.
        corner: (left, top) of the box.
        size: (height, width) of the mask; by default the box is all of it.
    """
    height, width = size or part.shape
    left, top = corner
    flat = np.pad(part, ((1, 1), (0, 0))).ravel(order="F").astype(np.int8)  # columns stay apart
    edges = np.flatnonzero(np.diff(flat)) + 1
    column, row = np.divmod(edges, len(part) + 2)
    places = (column + left) * height + row - 1 + top
    starts, ends = places[::2], places[1::2]
    apart = starts[1:] != ends[:-1]  # a run that goes on at the top of the next column is one
    starts = starts[np.concatenate([[True], apart])] if len(starts) else starts
    ends = ends[np.concatenate([apart, [True]])] if len(ends) else ends
    both = np.stack([starts, ends], axis=1).ravel()
    counts: list[int] = np.diff([0, *both.tolist(), height * width]).tolist()
    return counts if not len(both) or both[-1] < height * width else counts[:-1]


def compressed(counts: Sequence[int]) -> str:
    """Write run lengths as text: each less the one before the last, in groups of five bits.

    From the fourth on a number is stored as its difference; a group is a character from "0" on, and
    its sixth bit says that more follow (the format of COCO's own tools).
    """
    letters = []
    for place, count in enumerate(counts):
        value = count - counts[place - 2] if place > 2 else count
        while True:
            group, value = value & 31, value >> 5
            last = value == (-1 if group & 16 else 0)
            letters.append(chr(_FIRST + group + (0 if last else 32)))
            if last:
                break
    return "".join(letters)


def expanded(text: str) -> list[int]:
    """Read what `compressed` wrote.

    Raises:
        InputError: no such text.
    """
    counts: list[int] = []
    value, bits = 0, 0
    for letter in text:
        group = ord(letter) - _FIRST
        if not 0 <= group < 64 or bits > _MOST_BITS:
            raise InputError("a mask's compressed run lengths are damaged")
        value |= (group & 31) << bits
        bits += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << bits
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value, bits = 0, 0
    if bits:
        raise InputError("a mask's compressed run lengths are cut off")
    return counts


def from_run_lengths(counts: Sequence[int], height: int, width: int) -> npt.NDArray[np.bool_]:
    """Draw a mask (height, width) of its run lengths.

    Raises:
        InputError: they do not fill the mask.
    """
    fill = all(0 <= count <= height * width for count in counts) and sum(counts) == height * width
    if not fill or height < 1 or width < 1:
        raise InputError(f"a mask's run lengths do not fill {width}x{height} pixels")
    lengths = np.asarray(counts, np.int64)
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape((height, width), order="F")
