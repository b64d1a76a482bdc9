"""What a segmenter says of one image."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from svfseg.data.images import Array
from svfseg.segmenter.calibration import ClassThresholds
from svfseg.segmenter.inference import ClassMaps
from svfseg.segmenter.thresholds import assign_classes


@dataclass(frozen=True)
class Segmentation:
    """The classes in one image, at its own size.

    Attributes:
        mask: (height, width) uint8; 0 is background, i the i-th class.
        probabilities: (classes, height, width) float16 in [0, 1].
        confidence: class -> how sure its answer is, in [0, 1]: of a mask, that the class is there
            and that its pixels belong to it; of an empty answer, that it is not there.
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
        maps: of the image.
        thresholds: class id -> its thresholds, in the order of the maps.
        classes: names of the class ids 1, 2 ...
        reject_absent: whether a class with too low a presence score has an empty mask.
    """
    present: dict[str, bool] = {}
    confidence: dict[str, float] = {}
    for i, rule in thresholds.items():
        name, probability, score = classes[i - 1], maps.maps[i - 1], maps.presence[i - 1]
        present[name] = not reject_absent or score >= rule.presence
        inside = probability > rule.threshold
        odds = (score - rule.presence) / rule.spread if math.isfinite(rule.presence) else 2.0
        share = 1 / (1 + math.exp(-max(-30.0, min(30.0, odds))))
        has_mask = present[name] and bool(inside.any())
        value = share * float(probability[inside].mean()) if has_mask else 1 - share
        confidence[name] = round(value, 4)
    levels = [rule.threshold for rule in thresholds.values()]
    mask = assign_classes(maps.maps, levels, list(present.values())).numpy()
    return Segmentation(mask, maps.maps.half().numpy(), confidence, present, tuple(classes))
