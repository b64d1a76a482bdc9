"""From what a model says of its own supports: where to cut a map, and when it is empty."""

from collections.abc import Sequence
from itertools import pairwise
from statistics import mean, pstdev

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

CUTS = tuple(round(0.1 + 0.05 * i, 2) for i in range(17))
# What images without the class say of it counts as much as so many supports; found on ten classes
# that no table is about, see docs/own-data.md.
PRIOR = 4


def best_cut(
    maps: Sequence[Tensor], targets: Sequence[Tensor], cuts: Sequence[float] = CUTS
) -> tuple[float, float]:
    """The cut of probability maps with the highest IoU, summed over all of them.

    Args:
        maps: (height, width) each, in [0, 1].
        targets: (height, width) of 0, 1 and 255 (not counted).
        cuts: candidates; of several that are as good the one nearest to 0.5.

    Returns:
        (cut, its IoU); (0.5, nan) where no target has a pixel of the class.
    """
    if not any(bool((t == 1).any()) for t in targets):
        return 0.5, float("nan")
    scores = {}
    for value in sorted(cuts, key=lambda c: abs(c - 0.5)):
        shared = joined = 0
        for found, target in zip(maps, targets, strict=True):
            counted, inside = target != 255, found > value
            shared += int((inside & (target == 1)).sum())
            joined += int(((inside | (target == 1)) & counted).sum())
        scores[value] = shared / joined
    value = max(scores, key=scores.__getitem__)
    return value, scores[value]


def presence_cut(there: Sequence[float], missing: Sequence[float]) -> float:
    """The evidence from which a class counts as present in an image.

    One standard deviation above the mean of the images without the class, moved towards
    `least_errors` the more, the more images of the class there are: a few that look alike lie
    far from all others, and a cut in the middle of that gap would empty most of the rest.

    Args:
        there: evidence of images with the class.
        missing: of images without it, one or more.
    """
    above = mean(missing) + pstdev(missing)
    if not there:
        return above
    return (len(there) * least_errors(there, missing) + PRIOR * above) / (len(there) + PRIOR)


def least_errors(there: Sequence[float], missing: Sequence[float]) -> float:
    """The cut that tells two kinds of values apart.

    Where they are apart, it lies halfway between them; where they overlap, where the mean of both
    error rates is least.

    Args:
        there: values of images with the class, one or more.
        missing: of images without it, one or more.
    """
    low, high = max(missing), min(there)
    if low < high:
        return (low + high) / 2
    values = sorted({*there, *missing})
    if len(values) == 1:
        return values[0]
    middles = [(a + b) / 2 for a, b in pairwise(values)]

    def error(cut: float) -> float:
        lost = sum(e < cut for e in there) / len(there)
        false = sum(e >= cut for e in missing) / len(missing)
        return lost + false

    return min(middles, key=error)


def evidence(deep: Tensor, keys: Tensor, found: Tensor) -> float:
    """How much what was outlined, and the image at its best, look like the supports.

    The prior mask is stretched to [0, 1] in each image, so a head outlines something in any image.
    What tells whether the class is there is the similarity before that: the mean of its
    highest 2 % of positions, and of all positions weighed by the probability of the class.

    Args:
        deep: (channels, height, width), deep features of the query.
        keys: (channels, positions), those inside the supports' masks.
        found: (rows, columns), probability of the class.

    Returns:
        A cosine in [-1, 1].
    """
    query = F.normalize(deep.flatten(1), dim=0)
    inside = F.normalize(keys[:, keys.norm(dim=0) > 0], dim=0)
    if inside.shape[1] == 0:
        return 0.0
    nearest = (inside.T @ query).amax(dim=0)
    share = F.interpolate(found[None, None], deep.shape[-2:], mode="area").flatten()
    weighed = (nearest * share).sum() / share.sum().clamp_min(1e-6)
    best = nearest.topk(max(1, len(nearest) // 50)).values.mean()
    return float((weighed + best) / 2)


def free_part(
    mask: npt.NDArray[np.uint8], class_id: int, least: int = 48
) -> tuple[slice, slice] | None:
    """The largest strip beside a class: an image of the same place without it.

    Args:
        mask: (height, width) of ids.
        class_id: the class.
        least: height and width that the strip must have, in pixels.

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
    return strips[number] if area and min(sides[number]) >= least else None


def decide(maps: Tensor, thresholds: Sequence[float], present: Sequence[bool]) -> Tensor:
    """Each pixel to the class whose probability is furthest above its threshold.

    Args:
        maps: (classes, height, width), probability.
        thresholds: one a class; only more than it belongs to the class.
        present: one a class; what is not present has no pixel.

    Returns:
        (height, width) uint8; 0 is background, i the i-th class.
    """
    levels = torch.tensor(thresholds, dtype=maps.dtype, device=maps.device)
    margins = maps - levels[:, None, None]
    margins[~torch.tensor(present, device=maps.device)] = -1
    best, which = margins.max(dim=0)
    mask: Tensor = torch.where(best > 0, which + 1, 0).to(torch.uint8)
    return mask
