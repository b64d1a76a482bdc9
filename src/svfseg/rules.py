"""How a class's maps become a mask: found by asking a model for its own supports."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, median, pstdev

import numpy as np
import torch

from svfseg.adapt import Support
from svfseg.calibration import best_cut, free_part, presence_cut
from svfseg.data.index import Sample
from svfseg.data.photographs import photographs
from svfseg.outline import Outliner, Views

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


def find_rule(
    outliner: Outliner,
    supports: Sequence[Support],
    views: Views,
    class_id: int,
    threshold: float | None,
    seed: int,
) -> Rule:
    """The rule of a class, from its supports.

    Each support is asked with the others as its supports, a single one as augmented views of
    itself. Images without the class: those given, the parts without it of supports that are left
    out, and where few are given, photographs of other things.

    Args:
        outliner: the model.
        supports: of all classes, and images without any.
        views: of the supports.
        class_id: the class.
        threshold: taken as it is; None chooses the one with the highest IoU, and one half where
            there is a single support, whose own views say too little of other images.
        seed: of the augmented views.
    """
    maps, targets, there, missing = [], [], [], []
    for asked, shots in _asked(outliner, supports, views, class_id, seed):
        (seen,) = outliner.look([asked.image], {class_id: shots})
        marked = asked.mask == class_id
        if marked.any():
            maps.append(seen.maps[0])
            targets.append(torch.from_numpy(np.where(asked.mask == 255, 255, marked)))
            there.append(seen.evidence[0])
        else:
            missing.append(seen.evidence[0])
    alone = len({s.group for s in supports if shows(s, class_id)}) == 1
    if threshold is None and not alone:
        threshold, iou = best_cut(maps, targets)
    else:
        threshold = 0.5 if threshold is None else threshold
        _, iou = best_cut(maps, targets, (threshold,))
    if sum(not shows(s, class_id) for s in supports) < ENOUGH:
        known = {class_id: views[class_id]}
        missing += [seen.evidence[0] for seen in outliner.look(photographs(), known)]
    # a single support looks more like itself than another image of its class would
    presence = presence_cut([] if alone else there, missing)
    spread = pstdev(missing) if alone else abs(median(there) - median(missing)) / 4
    return Rule(threshold, presence, max(0.02, spread), iou)


def left_out_iou(outliner: Outliner, rest: Sequence[Support], asked: Sequence[Support]) -> float:
    """Mean IoU on supports that the model was not tuned on, at a threshold of one half."""
    ids = sorted({int(i) for s in asked for i in np.unique(s.sample.mask)} - {0, 255})
    views = outliner.views([s.sample for s in rest], ids)
    scores = []
    for class_id, shots in views.items():
        for support in asked:
            if shots and shows(support, class_id):
                (seen,) = outliner.look([support.sample.image], {class_id: shots})
                target = torch.from_numpy(support.sample.mask == class_id)
                inside = seen.maps[0] > 0.5
                scores.append(float((inside & target).sum() / (inside | target).sum()))
    return mean(scores) if scores else 0.0


def shows(support: Support, class_id: int) -> bool:
    """Whether a support has a pixel of a class."""
    return bool((support.sample.mask == class_id).any())


def _asked(
    outliner: Outliner, supports: Sequence[Support], views: Views, class_id: int, seed: int
) -> Iterator[tuple[Sample, Sequence[object]]]:
    """Images with a class and without it, each with the views of supports to ask it with."""
    having = [s for s in supports if shows(s, class_id)]
    groups = sorted({s.group for s in having})
    for group in groups:
        own = [s.sample for s in having if s.group == group]
        shots = views[class_id]
        if len(groups) > 1:
            rest = [s.sample for s in having if s.group != group]
            shots = outliner.views(rest, [class_id])[class_id]
        else:
            own = [other for sample in own[:2] for other in other_views(sample, seed)]
        for sample in own if shots else ():
            yield sample, shots
            part = free_part(sample.mask, class_id)
            if part is not None and len(groups) > 1:
                yield Sample(sample.image[part], sample.mask[part]), shots
    for support in supports:
        if not shows(support, class_id):
            yield support.sample, views[class_id]


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
