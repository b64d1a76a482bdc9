"""Choose how a class's logits become a mask, from supports that are held out."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from svfseg.segmenter.adaptation import Support
from svfseg.segmenter.inference import Predictor, by_class, presence_score
from svfseg.segmenter.supports import Kind
from svfseg.segmenter.thresholds import (
    above_given,
    best_threshold,
    fit_logistic,
    presence_threshold,
)

# Held-out supports that are asked at most for a class, evenly spread.
MOST = 12
# What is further from a class than this share of the longer side is background without it, where
# it is at least this share of the image.
FAR, LEAST = 0.04, 0.2
# The presence threshold lies at most so far from what surrounds the class towards the class.
BESIDE = 0.7
# The halves of one picture are more alike than two pictures. So of a single support the presence
# threshold lies lower: by this share of the distance from the score to the ground, of a texture or
# of one thing. The logit of the pixel threshold of one thing is nearer to zero, the comparison's
# own. Chosen on half of the tasks, see docs/own-data.md.
TEXTURE_BELOW, THING_BELOW, THING_CUT = 0.3, 0.55, 0.2
# What masks of other images have of the IoU that the halves of one thing have.
THING_IOU = 0.6
# With images without the class the presence threshold lies between so many spreads below images
# with it.
GIVEN_BETWEEN = (1.5, 0.7)
# How far a mask's own estimate of its IoU is corrected by what held-out supports had.
CORRECTION = (0.25, 4.0)


@dataclass(frozen=True)
class ClassThresholds:
    """How a class's logits become a mask.

    Attributes:
        threshold: probability from which a pixel belongs to the class.
        presence: presence score from which the class counts as present in an image.
        spread: how far from it the score must be to be sure.
        iou: IoU of held-out supports at the threshold (of the halves of a single one).
        slope: times the logit, plus ``shift``, is the logit of the probability.
        shift: see there.
        correction: IoU of held-out supports over what their probabilities let expect.
    """

    threshold: float = 0.5
    presence: float = -math.inf
    spread: float = 0.1
    iou: float = math.nan
    slope: float = 1.0
    shift: float = 0.0
    correction: float = 1.0

    def to_plain(self) -> dict[str, float | None]:
        """Give plain data for JSON, which knows neither infinity nor NaN."""
        return {k: v if math.isfinite(v) else None for k, v in vars(self).items()}

    @classmethod
    def from_plain(cls, values: Mapping[str, float | None]) -> Self:
        """Read what `to_plain` gave."""
        missing = {"presence": -math.inf}
        return cls(**{k: missing.get(k, math.nan) if v is None else v for k, v in values.items()})


class HeldOut(NamedTuple):
    """What is said of an image that the answer was not learned from.

    Attributes:
        logits: (classes, height, width).
        alone: the same by the comparison alone.
        ids: (height, width), the truth.
        answered: the classes that other supports show.
    """

    logits: Tensor
    alone: Tensor
    ids: Tensor
    answered: frozenset[int]


def hold_out(
    predictor_of: Callable[[int], Predictor],
    judged: Sequence[Support],
    features: Sequence[Mapping[int, Any]],
    class_ids: Sequence[int],
) -> list[HeldOut]:
    """Answer each support with the others as its supports.

    Args:
        predictor_of: group of a support -> the model without what it learned from it.
        judged: supports of all classes; of a single one its halves, and images without any.
        features: features of these by class id.
        class_ids: the classes.
    """
    asked: set[int] = set()
    for class_id in class_ids:  # a class that few show is asked too
        groups = sorted({s.group for s, f in zip(judged, features, strict=True) if class_id in f})
        asked |= set(groups[:: max(1, -(-len(groups) // MOST))])
    answers = []
    for support, own in zip(judged, features, strict=True):
        if not own or support.group not in asked:
            continue
        others = by_class(
            (f for s, f in zip(judged, features, strict=True) if s.group != support.group),
            class_ids,
        )
        answered = frozenset(c for c in class_ids if others[c])
        if not answered:
            continue
        # a class that no other support shows is asked with its own, and does not count
        shots = {c: others[c] or [f[c] for f in features if c in f] for c in class_ids}
        if not all(shots.values()):
            continue
        predictor = predictor_of(support.group)
        answers.append(HeldOut(*predictor.fitted_logits(support.sample, shots), answered))
    return answers


def calibrate(
    answers: Sequence[HeldOut],
    without: Sequence[Tensor],
    class_ids: Sequence[int],
    threshold: float | None,
    single: Kind | None = None,
) -> dict[int, ClassThresholds]:
    """Choose how the logits of all classes become masks.

    The logits become probabilities by a logistic regression; the threshold is the one of the
    highest IoU. Whether a class is there at all is judged by the comparison alone, which tells it
    better than what was fitted to outline: see `presence_threshold`, and `above_given` for images
    without the class.

    Args:
        answers: what `hold_out` gave.
        without: logits (classes, height, width) of images that show none of the classes, by the
            comparison alone.
        class_ids: the classes.
        threshold: taken as it is; None chooses.
        single: what the class is where the answers are of the halves of a single support.
    """
    scales = {}
    for place, c in enumerate(class_ids):
        own = [a for a in answers if c in a.answered]
        scales[c] = fit_logistic([a.logits[place] for a in own], [target_of(a.ids, c) for a in own])
    shares = [probabilities(a.logits, list(scales.values())) for a in answers]
    rules = {}
    for place, c in enumerate(class_ids):
        showing = [
            (a, share[place])
            for a, share in zip(answers, shares, strict=True)
            if c in a.answered and bool((a.ids == c).any())
        ]
        maps = [share for _, share in showing]
        targets = [target_of(a.ids, c) for a, _ in showing]
        candidates = {} if threshold is None else {"candidates": (threshold,)}
        level, iou = best_threshold(maps, targets, **candidates)
        level = level if threshold is None else threshold
        slope, shift = scales[c]
        if single == "thing" and threshold is None:  # the same level at another logit
            shift = _logit(level) - THING_CUT * (_logit(level) - shift)
        around = [surroundings_score(a.alone[place], a.ids, c) for a, _ in showing]
        beside = [score for score in around if score is not None]
        alone = [a.alone[place] for a, _ in showing]
        least, spread = _presence(alone, beside, [logits[place] for logits in without], single)
        expected = [expected_iou(share, share > level) for share in maps]
        correction = 1.0
        if expected and mean(expected) > 0:
            truth = [
                _iou(share > level, target) for share, target in zip(maps, targets, strict=True)
            ]
            correction = min(CORRECTION[1], max(CORRECTION[0], mean(truth) / mean(expected)))
        if single == "thing":
            correction *= THING_IOU
        rules[c] = ClassThresholds(level, least, spread, iou, slope, shift, correction)
    return rules


def _presence(
    alone: Sequence[Tensor], beside: Sequence[float], without: Sequence[Tensor], single: Kind | None
) -> tuple[float, float]:
    """The presence threshold of a class and its spread, from logits of held-out images."""
    if not alone:
        return -math.inf, 1.0
    scores = [presence_score(logits) for logits in alone]
    ground = mean(float(logits.median()) for logits in alone)
    least, spread = presence_threshold(scores, ground)
    if beside and mean(beside) < mean(scores):  # else they look alike, and tell nothing
        least = min(least, mean(beside) + BESIDE * (mean(scores) - mean(beside)))
    if single:
        below = THING_BELOW if single == "thing" else TEXTURE_BELOW
        least = mean(scores) - below * (mean(scores) - ground)
    if without:
        lowest, highest = (mean(scores) - below * spread for below in GIVEN_BETWEEN)
        lowest = least if single else lowest
        given = [presence_score(logits) for logits in without]
        least = above_given(scores, given, lowest, max(lowest, highest))
    return least, spread


def _logit(share: float) -> float:
    return math.log(share / (1 - share))


def probabilities(logits: Tensor, scales: Sequence[tuple[float, float]]) -> Tensor:
    """Turn logits (classes, height, width) into probabilities, of which one pixel has at most 1.

    Args:
        logits: relative to the background's.
        scales: slope and shift of each class.
    """
    slope, shift = (logits.new_tensor(each)[:, None, None] for each in zip(*scales, strict=True))
    scaled = logits * slope + shift
    return torch.cat([torch.zeros_like(scaled[:1]), scaled]).softmax(dim=0)[1:]


def expected_iou(share: Tensor, inside: Tensor) -> float:
    """Give the IoU that a mask has if its probabilities are right.

    Args:
        share: (height, width), probability of the class.
        inside: (height, width) bool, the mask.
    """
    pixels, within, outside = overlap_sums(share, inside).tolist()
    joined = pixels + outside
    return within / joined if joined > 0 else 0.0


def overlap_sums(share: Tensor, inside: Tensor) -> Tensor:
    """Give what `expected_iou` adds up: pixels inside, the probabilities there, and elsewhere.

    Args:
        share: (height, width), probability of the class.
        inside: (height, width) bool, the mask.
    """
    within = torch.where(inside, share, 0.0).sum(dtype=torch.double)
    return torch.stack([inside.sum().double(), within, share.sum(dtype=torch.double) - within])


def target_of(ids: Tensor, class_id: int) -> Tensor:
    """Give the mask of one class: 0, 1, and 255 where it is unknown."""
    return torch.where(ids == 255, 255, (ids == class_id).to(torch.uint8))


def _iou(inside: Tensor, target: Tensor) -> float:
    marked, counted = target == 1, inside & (target != 255)
    return float((counted & marked).sum() / (counted | marked).sum().clamp_min(1))


def surroundings_score(logits: Tensor, ids: Tensor, class_id: int) -> float | None:
    """Score what surrounds a class; None where too little does."""
    radius = max(1, round(FAR * max(ids.shape)))
    marked = (ids == class_id).float()[None, None]
    for side in (0, 1):  # a square grows by one axis after the other
        window = (2 * radius + 1, 1) if side == 0 else (1, 2 * radius + 1)
        padding = (radius, 0) if side == 0 else (0, radius)
        marked = torch.nn.functional.max_pool2d(marked, window, 1, padding)
    far = (marked[0, 0] == 0) & (ids != 255)
    if float(far.float().mean()) < LEAST:
        return None
    return presence_score(logits[far])


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
                answer = predictor.fitted_logits(support.sample, {class_id: shots})
                scores.append(_iou(answer.logits[0] > 0, target_of(answer.ids, class_id)))
    return mean(scores) if scores else 0.0
