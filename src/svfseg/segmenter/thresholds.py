"""Choose thresholds from values: for the pixels of a map, and for the presence of a class."""

import math
from collections.abc import Sequence
from statistics import mean

import torch
from torch import Tensor

THRESHOLDS = (0.01, 0.02, 0.05, *(round(0.1 + 0.05 * i, 2) for i in range(17)))
# See `presence_threshold`; chosen on half of the tasks, see docs/own-data.md.
BELOW, PRIOR, TYPICAL = 1.4, 4, 0.18
# See `above_given`: how far it lies from the mean without the class towards that with it.
GIVEN = 0.3
# Pixels that fit the probabilities at most, and steps of Newton's method.
SAMPLE, STEPS = 200_000, 12


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


def fit_logistic(logits: Sequence[Tensor], targets: Sequence[Tensor]) -> tuple[float, float]:
    """Fit slope and shift that make probabilities of logits (Platt, 1999), by Newton's method.

    Args:
        logits: (height, width) each.
        targets: (height, width) of 0, 1 and 255 (not counted).

    Returns:
        (slope, shift); (1, 0) where only one of both kinds is there.
    """
    parts, labels = [], []
    for each, target in zip(logits, targets, strict=True):
        known = target != 255
        parts.append(each[known].double())
        labels.append((target[known] == 1).double())
    if not parts:
        return 1.0, 0.0
    x, y = torch.cat(parts), torch.cat(labels)
    if not 0 < float(y.sum()) < len(y):
        return 1.0, 0.0
    step = max(1, len(x) // SAMPLE)
    x, y = x[::step], y[::step]
    columns = torch.stack([x, torch.ones_like(x)])
    start = float(torch.logit(y.mean().clamp(1e-6, 1 - 1e-6)))
    weights = torch.tensor([1.0, start - float(x.mean())], dtype=torch.double)
    ridge = torch.tensor([1e-5, 1e-7], dtype=torch.double) * len(x)
    for _ in range(STEPS):
        share = (weights @ columns).sigmoid()
        gradient = columns @ (share - y) + ridge * (weights - weights.new_tensor([1.0, 0.0]))
        curvature = (columns * (share * (1 - share))) @ columns.T + torch.diag(ridge)
        move = torch.linalg.solve(curvature, gradient)
        weights = weights - move * min(1.0, 2.0 / float(move.abs().max().clamp_min(1e-12)))
    slope, shift = (float(value) for value in weights)
    if not (0.02 <= slope <= 50 and abs(shift) < 100):  # they sort the wrong way, or not at all
        return 1.0, 0.0
    return slope, shift


def presence_threshold(scores: Sequence[float], ground: float) -> tuple[float, float]:
    """Choose the presence score from which a class counts as present in an image.

    It lies `BELOW` spreads below the mean of images with the class. The spread of a few images is
    uncertain: `PRIOR` more are added whose spread is `TYPICAL` of the distance to the ground.

    Args:
        scores: presence scores of held-out images with the class.
        ground: the median logit of their pixels, which are mostly background.

    Returns:
        The threshold, and the spread.
    """
    there = mean(scores)
    typical = TYPICAL * max(1e-3, there - ground)
    squares = sum((score - there) ** 2 for score in scores)
    spread = math.sqrt((squares + PRIOR * typical**2) / (len(scores) - 1 + PRIOR))
    return there - BELOW * spread, spread


def above_given(
    with_class: Sequence[float], without: Sequence[float], lowest: float, highest: float
) -> float:
    """Choose a presence score above images that the user says are without a class.

    Args:
        with_class: presence scores of images with the class.
        without: those of images without it.
        lowest: it is at least that, as not all images without the class are like the given ones.
        highest: it is at most that, as images with the class are not to be emptied.
    """
    missing = mean(without)
    place = missing + GIVEN * (mean(with_class) - missing)
    return min(highest, max(lowest, place))


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
