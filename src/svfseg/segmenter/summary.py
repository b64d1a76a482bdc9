"""Say in words what fitting a task found."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # words need no network
    from svfseg.segmenter import FewShotSegmenter
    from svfseg.segmenter.learning import Learned

# IoU from which the words hold.
_WORDS = (
    (0.8, "most masks need no correction"),
    (0.6, "most masks need a small correction"),
    (0.4, "many masks need a correction"),
    (0.0, "expect to draw many masks anew"),
)


def fit_summary(segmenter: "FewShotSegmenter") -> list[str]:
    """List what the supports told: tuning, trust, IoU of each class, what would help most.

    Args:
        segmenter: fitted.
    """
    lines = []
    adaptation = segmenter.adaptation_
    if adaptation is not None and adaptation.held_out:
        tried = ", ".join(
            f"{p.steps} steps of {p.lr:g} {100 * iou:.1f}" for p, iou in adaptation.held_out.items()
        )
        if len(adaptation.race) > 1:
            race = ", ".join(f"{lr:g} {100 * iou:.1f}" for lr, iou in adaptation.race.items())
            lines.append(f"tuning, IoU on one support left out, %: rates {race}")
        lines.append(
            f"tuning, IoU on one or two left out, %: {tried}; took {adaptation.steps} steps"
        )
    if segmenter.learned_.held_out:
        lines.append(_choice(segmenter.learned_))
    return lines + class_summary(segmenter) + advice_summary(segmenter)


def class_summary(segmenter: "FewShotSegmenter") -> list[str]:
    """Say of each class what its supports tell.

    Args:
        segmenter: fitted.
    """
    lines = []
    for class_id, name in enumerate(segmenter.classes_, start=1):
        rule, shots = segmenter.thresholds_[class_id], len(segmenter.features_[class_id])
        lines.append(f"{name}: {_judged(rule.iou, shots)}; threshold {rule.threshold:g}")
    return lines


def advice_summary(segmenter: "FewShotSegmenter") -> list[str]:
    """Say what would help, what helps most first.

    Args:
        segmenter: fitted.
    """
    most, too = "what would help most", "what would help too"
    return [f"{too if n else most}: {text}" for n, text in enumerate(segmenter.advice_)]


def _judged(iou: float, shots: int) -> str:
    if math.isnan(iou):
        return "one support, of which no part can judge another"
    if shots == 1:
        return f"IoU {100 * iou:.0f} % on the halves of its one support, which tells little"
    words = next(words for least, words in _WORDS if iou >= least)
    return f"IoU {100 * iou:.0f} % on left-out supports, {shots} in all: {words}"


def _choice(learned: "Learned") -> str:
    """How far the decoder is trusted, and why."""
    alone, *others = learned.held_out.items()
    best = max(iou for _, iou in others)
    kept = {0.0: "the comparison alone is kept", 1.0: "the fitted decoder is kept"}
    if best > alone[1]:
        kept[0.0] = "too little to trust it, so the comparison alone is kept"
    return (
        f"fitted: IoU {100 * best:.0f} % on held-out supports, {100 * alone[1]:.0f} % by "
        f"comparison alone: {kept.get(learned.share, 'half of what was fitted is kept')}"
    )
