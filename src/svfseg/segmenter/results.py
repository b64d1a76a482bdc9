"""The result of a segmenter for one image."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from svfseg.data.images import Array
from svfseg.errors import InputError
from svfseg.segmenter.calibration import ClassThresholds, overlap_sums, probabilities
from svfseg.segmenter.inference import ClassMaps
from svfseg.segmenter.thresholds import assign_classes

# The logit of the probability that a tile without a class gives it at most.
ABSENT = -8.0
# Pixels that are computed at once.
STRIP = 1_000_000


@dataclass(frozen=True)
class Segmentation:
    """The classes in one image, at its own size.

    Attributes:
        mask: (height, width) uint8; 0 is background, i the i-th class.
        probabilities: (classes, height, width) float16 in [0, 1].
        confidence: class -> how good its answer is, in [0, 1]: of a mask, the IoU that it is
            expected to have; of an empty answer, how sure it is that the class is not there.
        present: class -> whether its presence score is high enough; without, its mask is empty.
        classes: names of the classes.
    """

    mask: Array
    probabilities: npt.NDArray[np.float16]
    confidence: dict[str, float]
    present: dict[str, bool]
    classes: tuple[str, ...]

    @property
    def least_confidence(self) -> float:
        """Confidence of the class that is least sure: what to sort by."""
        return min(self.confidence.values())


def segment(
    maps: ClassMaps,
    thresholds: Mapping[int, ClassThresholds],
    classes: Sequence[str],
    reject_absent: bool,
) -> Segmentation:
    """Turn the maps of an image into a mask, and say how sure it is.

    Args:
        maps: maps of the image.
        thresholds: class id -> its thresholds, in the order of the maps.
        classes: names of the class ids 1, 2 ...
        reject_absent: whether a class with too low a presence score has an empty mask.
    """
    rules = list(thresholds.values())
    names = [classes[i - 1] for i in thresholds]
    present = [
        not reject_absent or score >= rule.presence
        for score, rule in zip(maps.presence, rules, strict=True)
    ]
    _, height, width = maps.logits.shape
    mask = np.empty((height, width), np.uint8)
    halves = np.empty(maps.logits.shape, np.float16)
    sums = torch.zeros(len(rules), 3, dtype=torch.double)
    levels, scales = [r.threshold for r in rules], [(r.slope, r.shift) for r in rules]
    # what lies between needs ten times the memory of the result, so it is made of a strip at once
    for rows in _strips(height, width):
        shares = probabilities(maps.logits[:, rows], scales)
        halves[:, rows] = shares.half().numpy()
        mask[rows] = assign_classes(shares, levels, present).numpy()
        for place, level in enumerate(levels):
            sums[place] += overlap_sums(shares[place], shares[place] > level)
    confidence = {}
    for place, rule in enumerate(rules):
        pixels, within, outside = sums[place].tolist()
        score = maps.presence[place]
        odds = (score - rule.presence) / rule.spread if math.isfinite(rule.presence) else 4.0
        there = 1 / (1 + math.exp(-max(-30.0, min(30.0, odds))))
        value = 1 - there
        if present[place] and pixels:
            value = min(1.0, rule.correction * within / (pixels + outside))
        confidence[names[place]] = round(value, 4)
    return Segmentation(
        mask, halves, confidence, dict(zip(names, present, strict=True)), tuple(classes)
    )


def _strips(height: int, width: int) -> Iterable[slice]:
    """Cut the rows of an image into strips of at most `STRIP` pixels, or of one row."""
    rows = max(1, STRIP // width)
    return (slice(top, min(height, top + rows)) for top in range(0, height, rows))


def without_absent(maps: ClassMaps, thresholds: Sequence[ClassThresholds]) -> Tensor:
    """Set the logits of classes with too low a presence score far below zero.

    Args:
        maps: what the model says of an image or a tile.
        thresholds: those of the classes, in the order of the maps; without any, the logits stay.

    Returns:
        (classes, height, width), logits.
    """
    cleared = maps.logits.clone()
    for i, rule in enumerate(thresholds):
        if maps.presence[i] < rule.presence:
            cleared[i] = cleared[i].clamp_max((ABSENT - rule.shift) / rule.slope)
    return cleared


def mean_iou(pairs: Iterable[tuple[Array, Array]], classes: int) -> float:
    """Average the IoU of the classes, each summed over all images.

    A class that is neither marked nor predicted does not count.

    Args:
        pairs: predicted and true masks, (height, width) of ids each; pixels where the truth is 255
            do not count.
        classes: number of classes, of ids 1, 2 ...

    Raises:
        InputError: no class is marked or predicted in any image.
    """
    intersection, union = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    for predicted, truth in pairs:
        for i in range(classes):
            inside, marked = predicted == i + 1, truth == i + 1
            intersection[i] += (inside & marked).sum()
            union[i] += ((inside | marked) & (truth != 255)).sum()
    shares = [int(a) / int(b) for a, b in zip(intersection, union, strict=True) if b > 0]
    if not shares:
        raise InputError("no class is marked or predicted in any of the images: nothing to score")
    return mean(shares)
