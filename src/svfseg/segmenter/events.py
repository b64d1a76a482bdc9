"""Events that the tool reports while it works, for the commands and the page."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TuningStep:
    """A step of tuning or fitting to the supports has been taken.

    Attributes:
        step: number of the step over all trainings of the fit, from 1.
        steps: steps that are expected in all.
        loss: loss of the step.
    """

    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class ImageDone:
    """An image of a folder has been predicted and written.

    Attributes:
        prediction: its line of predictions.jsonl.
        done: images so far in this call.
        total: images that this call predicts.
        images_per_second: mean speed of this call.
    """

    prediction: dict[str, Any]
    done: int
    total: int
    images_per_second: float


TuningReport = Callable[[TuningStep], None]
ImageReport = Callable[[ImageDone], None]


def ignore(event: object) -> None:
    """Report to nobody."""
