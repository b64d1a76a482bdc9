"""How a class's maps become a mask: found by asking a model for its own supports."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median, pstdev
from typing import Any, NamedTuple

import numpy as np
import torch

from svfseg.adapt import Support
from svfseg.calibration import best_cut, free_part, presence_cut
from svfseg.data.index import Sample
from svfseg.data.photographs import photographs
from svfseg.outline import Outliner, by_class

VIEWS_ALONE = 3
# Images without the class that must be given before photographs of other things are left out.
ENOUGH = 3


@dataclass(frozen=True)
class Rule:
    """How a class's maps become a mask.

    Attributes:
        threshold: probability from which a pixel belongs to it.
        presence: evidence from which it counts as present.
        spread: of evidence, for the confidence.
        iou: of left-out supports at the threshold (of augmented views where there is one).
    """

    threshold: float = 0.5
    presence: float = -math.inf
    spread: float = 0.1
    iou: float = math.nan


class Asked(NamedTuple):
    """What calibrates a class.

    Attributes:
        questions: images with it and without it, each with the views of supports to ask it with.
        alone: whether there is a single support, asked as views of itself.
    """

    questions: list[tuple[Sample, Sequence[Any]]]
    alone: bool


def find_rules(
    outliner: Outliner,
    supports: Sequence[Support],
    shown: Sequence[Mapping[int, Any]],
    ids: Sequence[int],
    threshold: float | None,
    seed: int,
) -> dict[int, Rule]:
    """The rules of all classes, from their supports.

    Each support is asked with the others as its supports, a single one as augmented views of
    itself. Images without the class: those given, the parts without it of supports that are left
    out, and where few are given, photographs of other things.

    Args:
        outliner: the model.
        supports: of all classes, and images without any.
        shown: the supports' views, of `Outliner.views`.
        ids: of the classes.
        threshold: taken as it is; None chooses the one with the highest IoU, and one half where
            there is a single support, whose own views say too little of other images.
        seed: of the augmented views.
    """
    views = by_class(shown, ids)
    few = [c for c in ids if sum(not s.shows(c) for s in supports) < ENOUGH]
    others = outliner.look(photographs(), {c: views[c] for c in few}) if few else []
    missing = {c: [seen.evidence[i] for seen in others] for i, c in enumerate(few)}
    return {
        c: _rule(_asked(supports, shown, c, seed), outliner, c, missing.get(c, []), threshold)
        for c in ids
    }


def _rule(
    asked: Asked,
    outliner: Outliner,
    class_id: int,
    others: Sequence[float],
    threshold: float | None,
) -> Rule:
    """The rule of a class, from what is asked and the evidence in photographs of other things."""
    maps, targets, there, missing = [], [], [], []
    for sample, shots in asked.questions:
        (seen,) = outliner.look([sample.image], {class_id: shots})
        marked = sample.mask == class_id
        if marked.any():
            maps.append(seen.maps[0])
            targets.append(torch.from_numpy(np.where(sample.mask == 255, 255, marked)))
            there.append(seen.evidence[0])
        else:
            missing.append(seen.evidence[0])
    missing += others
    if threshold is None and not asked.alone:
        threshold, iou = best_cut(maps, targets)
    else:
        threshold = 0.5 if threshold is None else threshold
        _, iou = best_cut(maps, targets, (threshold,))
    # a single support looks more like itself than another image of its class would
    presence = presence_cut([] if asked.alone else there, missing)
    spread = pstdev(missing) if asked.alone else abs(median(there) - median(missing)) / 4
    return Rule(threshold, presence, max(0.02, spread), iou)


def left_out_iou(outliner: Outliner, rest: Sequence[Support], asked: Sequence[Support]) -> float:
    """Mean IoU on supports that the model was not tuned on, at a threshold of one half."""
    ids = sorted({int(i) for s in asked for i in np.unique(s.sample.mask)} - {0, 255})
    views = by_class(outliner.views([s.sample for s in rest], ids), ids)
    scores = []
    for class_id, shots in views.items():
        for support in asked:
            if shots and support.shows(class_id):
                (seen,) = outliner.look([support.sample.image], {class_id: shots})
                target = torch.from_numpy(support.sample.mask == class_id)
                inside = seen.maps[0] > 0.5
                scores.append(float((inside & target).sum() / (inside | target).sum()))
    return mean(scores) if scores else 0.0


def _asked(
    supports: Sequence[Support], shown: Sequence[Mapping[int, Any]], class_id: int, seed: int
) -> Asked:
    having = [(s, v) for s, v in zip(supports, shown, strict=True) if s.shows(class_id)]
    groups = sorted({s.group for s, _ in having})
    alone = len(groups) == 1
    whole = by_class(shown, [class_id])[class_id]
    questions: list[tuple[Sample, Sequence[Any]]] = []
    for group in groups:
        own = [s.sample for s, _ in having if s.group == group]
        shots = whole
        if alone:
            own = [other for sample in own[:2] for other in other_views(sample, seed)]
        else:
            shots = [v[class_id] for s, v in having if s.group != group and class_id in v]
        for sample in own if shots else ():
            questions.append((sample, shots))
            part = free_part(sample.mask, class_id)
            if part is not None and not alone:
                questions.append((Sample(sample.image[part], sample.mask[part]), shots))
    questions += [(s.sample, whole) for s in supports if not s.shows(class_id)]
    return Asked(questions, alone)


def other_views(sample: Sample, seed: int) -> list[Sample]:
    """A support as it might have been taken otherwise: mirrored, cropped, lighter or darker."""
    rng = np.random.default_rng((seed, 7))
    found = []
    for _ in range(VIEWS_ALONE):
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
        found.append(Sample(light.astype(np.uint8), np.ascontiguousarray(mask)))
    return found
