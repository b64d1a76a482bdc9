"""Say what would help a task most, from what was tried on its supports."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

from svfseg.models.head import ComparingHead
from svfseg.segmenter.adaptation import Support
from svfseg.segmenter.calibration import (
    ClassThresholds,
    HeldOut,
    surroundings_score,
    target_of,
)
from svfseg.segmenter.inference import Predictor, thinned
from svfseg.segmenter.thresholds import best_threshold

# A change that gains less IoU on held-out supports than this is not worth a word.
WORTH = 0.03
# Held-out supports that are asked anew; how much larger images are tried, and up to which side.
ASKED, LARGER, LARGEST = 3, 1.5, 1280
# Where more surroundings of a class than this count as showing it, images without it help.
ALIKE = 0.25


def advise(
    predictor: Predictor, supports: Sequence[Support], features: Sequence[Mapping[int, Any]],
    names: Sequence[str], thresholds: Mapping[int, ClassThresholds], answers: Sequence[HeldOut],
    tries: bool, is_cut: bool,
) -> list[str]:  # fmt: skip
    """Say in sentences what would help the class that does worst, what helps most first.

    What is tried is tried without a decoder: the IoU are those of the comparison alone.

    Args:
        predictor: the model, without a decoder.
        supports: the supports.
        features: features of these by class id.
        names: names of the classes.
        thresholds: class id -> how its logits become a mask.
        answers: what `svfseg.segmenter.calibration.hold_out` gave.
        tries: whether to ask held-out supports anew: from one other support, and at a larger size.
        is_cut: whether the time ended before what is fitted was done.
    """
    time = ["give more seconds: the time was over before fitting was done"] if is_cut else []
    worst = min(thresholds, key=lambda c: _or_zero(thresholds[c].iou))
    name, rule = names[worst - 1], thresholds[worst]
    groups = {s.group for s, own in zip(supports, features, strict=True) if worst in own}
    if len(groups) < 2:
        return [
            *time,
            f"mark {name} in a second image: a single one does not tell how it does in others",
        ]
    gains: list[tuple[float, str]] = []
    if tries and isinstance(predictor.head, ComparingHead):
        usual = _held_out_iou(predictor, supports, features, worst, len(groups))
        fewer = _held_out_iou(predictor, supports, features, worst, 1)
        if len(groups) > 2:
            # the gain of one more falls with the number that there are
            rise = (usual - fewer) / math.log(len(groups) - 1) * math.log(1 + 1 / len(groups))
            seen = f"{_percent(usual)} from {len(groups) - 1}, {_percent(fewer)} from one"
            gains.append((rise, f"mark {name} in one more image: {seen}, by comparison alone"))
        size = round(LARGER * predictor.size / 32) * 32
        if size <= LARGEST:
            larger = replace(predictor, size=size)
            encoded = larger.encode_supports([s.sample for s in supports], [worst])
            encoded = thinned(predictor.head, encoded, len(names))
            there = _held_out_iou(larger, supports, encoded, worst, len(groups))
            seen = f"{_percent(there)} in place of {_percent(usual)} by comparison alone"
            slower = "a query takes twice as long"
            gains.append((there - usual, f"set size to {size}: {seen}, but {slower}"))
    beside = [
        score
        for each in answers
        if (score := surroundings_score(each.alone[worst - 1], each.ids, worst)) is not None
    ]
    alike = mean(score >= rule.presence for score in beside) if beside else 0.0
    if alike > ALIKE and math.isfinite(rule.presence) and all(features):
        gains.append(
            (
                WORTH + alike / 10,
                f"give images without {name} as negatives: of what surrounds it, {_percent(alike)} "
                "looks like it",
            )
        )
    return time + [text for gain, text in sorted(gains, reverse=True) if gain >= WORTH]


def _held_out_iou(
    predictor: Predictor, supports: Sequence[Support], features: Sequence[Mapping[int, Any]],
    class_id: int, most: int,
) -> float:  # fmt: skip
    """IoU of a few held-out supports at their best threshold, each from at most so many others."""
    groups = sorted({s.group for s, own in zip(supports, features, strict=True) if class_id in own})
    maps, targets = [], []
    for number, group in enumerate(groups[:ASKED]):
        others = [*groups[number + 1 :], *groups[:number]][:most]
        shots = [
            own[class_id]
            for s, own in zip(supports, features, strict=True)
            if s.group in others and class_id in own
        ]
        for support in supports:
            if support.group == group and shots:
                answer = predictor.fitted_logits(support.sample, {class_id: shots})
                maps.append(answer.logits[0].sigmoid())
                targets.append(target_of(answer.ids, class_id))
    return _or_zero(best_threshold(maps, targets)[1])


def _or_zero(iou: float) -> float:
    return 0.0 if math.isnan(iou) else iou


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
