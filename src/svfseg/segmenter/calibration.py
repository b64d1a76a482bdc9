"""From what a model says of its own supports: where to cut a map, and when it is empty."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean, median, pstdev
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from svfseg.data.index import Sample
from svfseg.segmenter.adaptation import Support
from svfseg.segmenter.inference import Outliner, by_class
from svfseg.segmenter.negatives import photographs

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
