"""The result of a segmenter for one image."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
import numpy.typing as npt
from torch import Tensor

from svfseg.data.images import Array
from svfseg.errors import InputError
from svfseg.segmenter.calibration import ClassThresholds, expected_iou, probabilities
from svfseg.segmenter.inference import ClassMaps
from svfseg.segmenter.thresholds import assign_classes

# The logit of the probability that a tile without a class gives it at most.
ABSENT = -8.0


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
    present: dict[str, bool] = {}
    confidence: dict[str, float] = {}
    shares = probabilities(maps.logits, [(r.slope, r.shift) for r in thresholds.values()])
    for place, (i, rule) in enumerate(thresholds.items()):
        name, share, score = classes[i - 1], shares[place], maps.presence[place]
        present[name] = not reject_absent or score >= rule.presence
        inside = share > rule.threshold
        odds = (score - rule.presence) / rule.spread if math.isfinite(rule.presence) else 4.0
        there = 1 / (1 + math.exp(-max(-30.0, min(30.0, odds))))
        if present[name] and bool(inside.any()):
            value = min(1.0, rule.correction * expected_iou(share, inside))
        else:
            value = 1 - there
        confidence[name] = round(value, 4)
    levels = [rule.threshold for rule in thresholds.values()]
    mask = assign_classes(shares, levels, list(present.values())).numpy()
    return Segmentation(mask, shares.half().numpy(), confidence, present, tuple(classes))


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
