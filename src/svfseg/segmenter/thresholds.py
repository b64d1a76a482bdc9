"""Choose thresholds from values: for the pixels of a map, and for the presence of a class."""

from collections.abc import Sequence
from itertools import pairwise
from statistics import mean, pstdev

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

THRESHOLDS = tuple(round(0.1 + 0.05 * i, 2) for i in range(17))
# The weight, in supports, of what images without the class say of it; chosen on ten classes
# that no table is about, see docs/own-data.md.
PRIOR = 4


def best_threshold(
    maps: Sequence[Tensor], targets: Sequence[Tensor], candidates: Sequence[float] = THRESHOLDS
) -> tuple[float, float]:
    """Choose the threshold of probability maps with the highest IoU, summed over all of them.

    Args:
        maps: (height, width) each, in [0, 1].
        targets: (height, width) of 0, 1 and 255 (not counted).
        candidates: thresholds to choose from; of equally good ones the nearest to 0.5 is taken.

    Returns:
        (threshold, its IoU); (0.5, nan) where no target has a pixel of the class.
    """
    if not any(bool((t == 1).any()) for t in targets):
        return 0.5, float("nan")
    scores = {}
    for value in sorted(candidates, key=lambda c: abs(c - 0.5)):
        shared = joined = 0
        for probability, target in zip(maps, targets, strict=True):
            counted, inside = target != 255, probability > value
            shared += int((inside & (target == 1)).sum())
            joined += int(((inside | (target == 1)) & counted).sum())
        scores[value] = shared / joined
    value = max(scores, key=scores.__getitem__)
    return value, scores[value]


def presence_threshold(with_class: Sequence[float], without: Sequence[float]) -> float:
    """Choose the presence score from which a class counts as present in an image.

    One standard deviation above the mean of the images without the class, moved towards
    `youden_threshold` the more, the more images of the class there are: a few that look alike lie
    far from all others, and a cut in the middle of that gap would empty most of the rest.

    Args:
        with_class: presence scores of images with the class.
        without: those of images without it, one or more.
    """
    above = mean(without) + pstdev(without)
    if not with_class:
        return above
    return (len(with_class) * youden_threshold(with_class, without) + PRIOR * above) / (
        len(with_class) + PRIOR
    )


def youden_threshold(with_class: Sequence[float], without: Sequence[float]) -> float:
    """Choose the threshold that tells two kinds of values apart (Youden, 1950).

    Where they are apart, it lies halfway between them; where they overlap, where the mean of both
    error rates is least.

    Args:
        with_class: scores of images with the class, one or more.
        without: those of images without it, one or more.
    """
    low, high = max(without), min(with_class)
    if low < high:
        return (low + high) / 2
    values = sorted({*with_class, *without})
    if len(values) == 1:
        return values[0]
    middles = [(a + b) / 2 for a, b in pairwise(values)]

    def error(threshold: float) -> float:
        lost = sum(s < threshold for s in with_class) / len(with_class)
        false = sum(s >= threshold for s in without) / len(without)
        return lost + false

    return min(middles, key=error)


def largest_free_strip(
    mask: npt.NDArray[np.uint8], class_id: int, minimum: int = 48
) -> tuple[slice, slice] | None:
    """Find the largest strip beside a class: an image of the same place without it.

    Args:
        mask: (height, width) of ids.
        class_id: the class.
        minimum: height and width that the strip must have, in pixels.

    Returns:
        Rows and columns above, below, left or right of it; None where all strips are too narrow.
    """
    rows, columns = np.nonzero(mask == class_id)
    height, width = mask.shape
    if not len(rows):
        return slice(0, height), slice(0, width)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    strips = [
        (slice(0, top), slice(0, width)),
        (slice(bottom, height), slice(0, width)),
        (slice(0, height), slice(0, left)),
        (slice(0, height), slice(right, width)),
    ]
    sides = [(s[0].stop - s[0].start, s[1].stop - s[1].start) for s in strips]
    area, number = max((h * w, i) for i, (h, w) in enumerate(sides))
    return strips[number] if area and min(sides[number]) >= minimum else None


def assign_classes(maps: Tensor, thresholds: Sequence[float], present: Sequence[bool]) -> Tensor:
    """Assign each pixel to the class whose probability is furthest above its threshold.

    Args:
        maps: (classes, height, width), probability.
        thresholds: one per class; only more than it belongs to the class.
        present: one per class; what is not present has no pixel.

    Returns:
        (height, width) uint8; 0 is background, i the i-th class.
    """
    levels = torch.tensor(thresholds, dtype=maps.dtype, device=maps.device)
    margins = maps - levels[:, None, None]
    margins[~torch.tensor(present, device=maps.device)] = -1
    best, which = margins.max(dim=0)
    mask: Tensor = torch.where(best > 0, which + 1, 0).to(torch.uint8)
    return mask
