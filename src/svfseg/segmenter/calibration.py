"""Choose each class's mask threshold and presence threshold from its supports."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median, pstdev
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from svfseg.data.index import Sample
from svfseg.segmenter.adaptation import Support
from svfseg.segmenter.inference import Predictor, by_class
from svfseg.segmenter.negatives import photographs
from svfseg.segmenter.thresholds import best_threshold, largest_free_strip, presence_threshold

# Augmented copies that stand for a single support when it is asked about itself.
COPIES = 3
# Images without the class from which on no photographs of other things are added to them.
SUFFICIENT = 3


@dataclass(frozen=True)
class ClassThresholds:
    """How a class's maps become a mask.

    Attributes:
        threshold: probability from which a pixel belongs to the class.
        presence: presence score from which the class counts as present in an image.
        spread: deviation of presence scores, for the confidence.
        iou: IoU of left-out supports at the threshold (of augmented copies of a single support).
    """

    threshold: float = 0.5
    presence: float = -math.inf
    spread: float = 0.1
    iou: float = math.nan

    def to_plain(self) -> dict[str, float | None]:
        """Give plain data for JSON, which knows neither infinity nor NaN."""
        return {k: v if math.isfinite(v) else None for k, v in vars(self).items()}

    @classmethod
    def from_plain(cls, values: Mapping[str, float | None]) -> Self:
        """Read what `to_plain` gave."""
        missing = {"presence": -math.inf}
        return cls(**{k: missing.get(k, math.nan) if v is None else v for k, v in values.items()})


class Question(NamedTuple):
    """An image, and the supports that it is to be segmented with.

    Attributes:
        sample: the image with its mask, which may show the class or not.
        supports: features of the supports.
    """

    sample: Sample
    supports: Sequence[Any]


class CalibrationSet(NamedTuple):
    """What calibrates a class.

    Attributes:
        questions: images with the class and without it.
        is_single: whether there is one support only, whose questions are copies of itself.
    """

    questions: list[Question]
    is_single: bool


def calibrate(
    predictor: Predictor,
    supports: Sequence[Support],
    features: Sequence[Mapping[int, Any]],
    class_ids: Sequence[int],
    threshold: float | None,
    seed: int,
) -> dict[int, ClassThresholds]:
    """Choose the thresholds of all classes from their supports.

    Each support is segmented with the others as its supports, a single one as augmented copies of
    itself. Images without the class: those that were given, the parts without it of supports that
    are left out, and where these are few, photographs of other things.

    Args:
        predictor: the model.
        supports: supports of all classes, and images without any.
        features: features of the supports, from `Predictor.encode_supports`.
        class_ids: the classes.
        threshold: taken as it is; None chooses the one with the highest IoU, and one half where
            there is a single support, whose own copies say too little of other images.
        seed: seed of the augmented copies.
    """
    by_id = by_class(features, class_ids)
    few = [c for c in class_ids if sum(not s.shows(c) for s in supports) < SUFFICIENT]
    others = predictor.predict_maps(photographs(), {c: by_id[c] for c in few}) if few else []
    scores = {c: [maps.presence[i] for maps in others] for i, c in enumerate(few)}
    return {
        c: _class_thresholds(
            calibration_set(supports, features, c, seed), predictor, c, scores.get(c, []), threshold
        )
        for c in class_ids
    }


def _class_thresholds(
    calibration: CalibrationSet,
    predictor: Predictor,
    class_id: int,
    photograph_scores: Sequence[float],
    threshold: float | None,
) -> ClassThresholds:
    """Choose the thresholds of a class; photographs of other things count as images without it."""
    maps: list[Tensor] = []
    targets: list[Tensor] = []
    with_class: list[float] = []
    without: list[float] = []
    for sample, supports in calibration.questions:
        (predicted,) = predictor.predict_maps([sample.image], {class_id: supports})
        marked = sample.mask == class_id
        if marked.any():
            maps.append(predicted.maps[0])
            targets.append(torch.from_numpy(np.where(sample.mask == 255, 255, marked)))
            with_class.append(predicted.presence[0])
        else:
            without.append(predicted.presence[0])
    without += photograph_scores
    is_single = calibration.is_single
    if threshold is None and not is_single:
        threshold, iou = best_threshold(maps, targets)
    else:
        threshold = 0.5 if threshold is None else threshold
        _, iou = best_threshold(maps, targets, (threshold,))
    # a single support looks more like itself than another image of its class would
    presence = presence_threshold([] if is_single else with_class, without)
    spread = pstdev(without) if is_single else abs(median(with_class) - median(without)) / 4
    return ClassThresholds(threshold, presence, max(0.02, spread), iou)


def left_out_iou(
    predictor: Predictor, others: Sequence[Support], left_out: Sequence[Support]
) -> float:
    """Score supports that the model was not tuned on: mean IoU at a threshold of one half."""
    class_ids = sorted({int(i) for s in left_out for i in np.unique(s.sample.mask)} - {0, 255})
    features = by_class(predictor.encode_supports([s.sample for s in others], class_ids), class_ids)
    scores = []
    for class_id, shots in features.items():
        for support in left_out:
            if shots and support.shows(class_id):
                (predicted,) = predictor.predict_maps([support.sample.image], {class_id: shots})
                target = torch.from_numpy(support.sample.mask == class_id)
                inside = predicted.maps[0] > 0.5
                scores.append(float((inside & target).sum() / (inside | target).sum()))
    return mean(scores) if scores else 0.0


def calibration_set(
    supports: Sequence[Support], features: Sequence[Mapping[int, Any]], class_id: int, seed: int
) -> CalibrationSet:
    """Gather what calibrates a class: see `calibrate`."""
    showing = [(s, f) for s, f in zip(supports, features, strict=True) if s.shows(class_id)]
    groups = sorted({s.group for s, _ in showing})
    is_single = len(groups) == 1
    every = by_class(features, [class_id])[class_id]
    questions: list[Question] = []
    for group in groups:
        samples = [s.sample for s, _ in showing if s.group == group]
        shots = every
        if is_single:
            samples = [copy for sample in samples[:2] for copy in augmented_copies(sample, seed)]
        else:
            shots = [f[class_id] for s, f in showing if s.group != group and class_id in f]
        for sample in samples if shots else ():
            questions.append(Question(sample, shots))
            strip = largest_free_strip(sample.mask, class_id)
            if strip is not None and not is_single:
                questions.append(Question(Sample(sample.image[strip], sample.mask[strip]), shots))
    questions += [Question(s.sample, every) for s in supports if not s.shows(class_id)]
    return CalibrationSet(questions, is_single)


def augmented_copies(sample: Sample, seed: int) -> list[Sample]:
    """Make a support as it might have been taken otherwise: mirrored, cropped, lighter, darker."""
    rng = np.random.default_rng((seed, 7))
    copies = []
    for _ in range(COPIES):
        image, mask = sample
        height, width = mask.shape
        marked = np.argwhere((mask > 0) & (mask < 255))
        if len(marked):  # a random frame around what is marked
            low, high = marked.min(axis=0), marked.max(axis=0) + 1
            top, left = (int(rng.integers(0, side // 2 + 1)) for side in low)
            bottom = int(rng.integers(high[0] + (height - high[0]) // 2, height + 1))
            right = int(rng.integers(high[1] + (width - high[1]) // 2, width + 1))
            image, mask = image[top:bottom, left:right], mask[top:bottom, left:right]
        if rng.random() < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        light = np.clip(image.astype(np.float32) * rng.uniform(0.75, 1.25), 0, 255)
        copies.append(Sample(light.astype(np.uint8), np.ascontiguousarray(mask)))
    return copies
