"""Fit a model to the supports of a task, from marked images to thresholds."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from svfseg.errors import InputError
from svfseg.models import Head
from svfseg.models.head import ComparingHead
from svfseg.segmenter.adaptation import AdaptationResult, Support, adapt
from svfseg.segmenter.advice import advise
from svfseg.segmenter.calibration import ClassThresholds, calibrate, hold_out, left_out_iou
from svfseg.segmenter.events import TuningReport
from svfseg.segmenter.inference import Predictor, by_class, thinned
from svfseg.segmenter.learning import Learned, learn
from svfseg.segmenter.supports import Encoded, Kind, judged_supports, kind_of


class Tuning(NamedTuple):
    """What is asked of the backbone's tuning: see `svfseg.segmenter.adaptation.adapt`."""

    strategy: str | None
    steps: int | None
    lr: float | None


@dataclass(frozen=True)
class TaskFit:
    """A model fitted to a task.

    Attributes:
        predictor: the model as it predicts.
        features: class id -> the features of its supports.
        thresholds: class id -> how its logits become a mask.
        adaptation: the tuning of the backbone; None without.
        learned: the decoder.
        advice: sentences on what would help, what helps most first.
    """

    predictor: Predictor
    features: dict[int, list[Any]]
    thresholds: dict[int, ClassThresholds]
    adaptation: AdaptationResult | None
    learned: Learned
    advice: tuple[str, ...]


def fit_task(
    predictor: Predictor, supports: Sequence[Support], names: Sequence[str], tuning: Tuning,
    seconds: float, threshold: float | None, seed: int, report: TuningReport,
) -> TaskFit:  # fmt: skip
    """Fit a model to supports: tune its backbone, fit a decoder, choose thresholds.

    Args:
        predictor: the untouched model.
        supports: with the classes, or without any of them.
        names: names of the classes 1, 2 ...
        tuning: what is asked of the backbone's tuning.
        seconds: time that fitting the decoder may take; 0 fits none.
        threshold: probability from which a pixel belongs to a class; None chooses.
        seed: seed of all choices.
        report: called after each step.

    Raises:
        InputError: a class that vanishes at this size, or a loss that is not a number.
    """
    class_ids, begin = range(1, len(names) + 1), time.monotonic()
    adaptation = _tuned(predictor, supports, class_ids, tuning, seed, report)
    if adaptation is not None:
        predictor = replace(predictor, head=adaptation.merged().to(predictor.device))
    head = predictor.head

    def encode(some: Sequence[Support]) -> list[dict[int, Any]]:
        encoded = predictor.encode_supports([s.sample for s in some], class_ids)
        return thinned(head, encoded, len(names))

    encoded = encode(supports)
    features = by_class(encoded, class_ids)
    for class_id, name in zip(class_ids, names, strict=True):
        if not features[class_id]:
            raise InputError(
                f"class {class_id} ({name}) is too small: it vanishes at {predictor.size} pixels; "
                "crop the supports around it, or set tile"
            )
    own = Encoded(supports, encoded)
    single: Kind | None = None
    judged = own
    halves = judged_supports(supports, class_ids)
    if halves is not supports:
        judged = Encoded(halves, encode(halves))
        single = kind_of(supports, class_ids)
    negatives = _negatives(predictor, supports, class_ids)
    predictor = replace(predictor, negatives=_all(negatives))
    learned = Learned()
    if seconds > 0 and isinstance(head, ComparingHead):
        learned = learn(
            head, own, judged, single, class_ids, negatives, predictor.size, seconds, seed,
            predictor.device, report,
        )  # fmt: skip
    fitted = replace(predictor, decoder=learned.decoder, share=learned.share)

    def unseen(group: int) -> Predictor:
        return replace(fitted, decoder=learned.left_out.get(group))

    answers = hold_out(unseen, *judged, class_ids)
    without = [
        replace(
            predictor,
            negatives=_all({g: own for g, own in negatives.items() if g != support.group}),
        )
        .fitted_logits(support.sample, features)
        .alone
        for support in supports
        if support.group in negatives
    ]
    thresholds = calibrate(answers, without, class_ids, threshold, single)
    tries = time.monotonic() - begin < seconds
    advice = advise(predictor, supports, encoded, names, thresholds, answers, tries, learned.is_cut)
    return TaskFit(fitted, features, thresholds, adaptation, learned, tuple(advice))


def _negatives(
    predictor: Predictor, supports: Sequence[Support], class_ids: Sequence[int]
) -> dict[int, list[Any]]:
    """Group of an image that shows no class -> the features of its parts."""
    showing = {s.group for s in supports if any(s.shows(c) for c in class_ids)}
    without = [s for s in supports if s.group not in showing]
    encoded = predictor.encode_negatives([s.sample for s in without])
    groups: dict[int, list[Any]] = {s.group: [] for s in without}
    for support, features in zip(without, encoded, strict=False):
        groups[support.group].append(features)
    return groups


def _all(negatives: Mapping[int, Sequence[Any]]) -> tuple[Any, ...]:
    return tuple(each for own in negatives.values() for each in own)


def _tuned(
    predictor: Predictor, supports: Sequence[Support], class_ids: Sequence[int], tuning: Tuning,
    seed: int, report: TuningReport,
) -> AdaptationResult | None:  # fmt: skip
    if tuning.strategy is None:
        return None

    def score(head: Head, others: Sequence[Support], left_out: Sequence[Support]) -> float:
        return left_out_iou(replace(predictor, head=head), others, left_out)

    return adapt(
        predictor.head, supports, class_ids, tuning.strategy, predictor.size, tuning.steps,
        tuning.lr, seed, predictor.device, score, report,
    )  # fmt: skip
