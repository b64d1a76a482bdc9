"""Events that the laboratory reports while it works, for the commands and for Python users."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class LayerFactored:
    """A layer of the backbone has been factored.

    Attributes:
        done: layers so far.
        total: layers in all.
    """

    done: int
    total: int


@dataclass(frozen=True)
class StepDone:
    """An optimizer step has been taken.

    Attributes:
        step: number of the step, from 1.
        steps: steps in all.
        loss: loss of the step.
        episodes_per_second: mean speed of this call.
    """

    step: int
    steps: int
    loss: float
    episodes_per_second: float


@dataclass(frozen=True)
class CheckpointScored:
    """A model has been scored on its way, and its checkpoint written.

    Attributes:
        step: steps that it has been trained for.
        monitor: what the checkpoint is chosen on, see `svfseg.config.SelectionConfig`.
        scores: miou, fb_iou of the monitored classes (absent where nothing is monitored), and
            novel_miou, novel_fb_iou where a curve is asked for; in [0, 1].
        is_best: whether it is the best so far.
    """

    step: int
    monitor: str
    scores: dict[str, float]
    is_best: bool


@dataclass(frozen=True)
class EpisodesScored:
    """Episodes have been scored.

    Attributes:
        done: episodes so far.
        total: episodes in all.
    """

    done: int
    total: int


@dataclass(frozen=True)
class RunStarted:
    """A run of a study begins.

    Attributes:
        name: name of the run.
        done: runs that are finished.
        total: runs in all.
    """

    name: str
    done: int
    total: int


@dataclass(frozen=True)
class PhaseStarted:
    """A training or an evaluation of the demo begins.

    Attributes:
        phase: "training" or "evaluating".
        strategy: strategy of the run.
    """

    phase: str
    strategy: str


TrainEvent = LayerFactored | StepDone | CheckpointScored
Event = TrainEvent | EpisodesScored | RunStarted | PhaseStarted
Report = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Report to nobody."""
