"""The laboratory: training, evaluation and studies that compare with the literature.

Names load what they need on first use, so that events are known without torch.
"""

from typing import TYPE_CHECKING

from svfseg._lazy import lazy_names

if TYPE_CHECKING:  # what type checkers and editors see of the names below
    from svfseg.lab.analysis import analyze
    from svfseg.lab.bootstrap import Interval, Records, difference, mean_interval
    from svfseg.lab.evaluation import EvaluationResult, SeedScores, evaluate
    from svfseg.lab.metrics import ClassMeter, IoUMeter
    from svfseg.lab.study import Study, read_study, run_study
    from svfseg.lab.training import train

_HOMES = {
    "analyze": "svfseg.lab.analysis",
    "Interval": "svfseg.lab.bootstrap",
    "Records": "svfseg.lab.bootstrap",
    "difference": "svfseg.lab.bootstrap",
    "mean_interval": "svfseg.lab.bootstrap",
    "EvaluationResult": "svfseg.lab.evaluation",
    "SeedScores": "svfseg.lab.evaluation",
    "evaluate": "svfseg.lab.evaluation",
    "ClassMeter": "svfseg.lab.metrics",
    "IoUMeter": "svfseg.lab.metrics",
    "Study": "svfseg.lab.study",
    "read_study": "svfseg.lab.study",
    "run_study": "svfseg.lab.study",
    "train": "svfseg.lab.training",
}
__all__ = [
    "ClassMeter",
    "EvaluationResult",
    "Interval",
    "IoUMeter",
    "Records",
    "SeedScores",
    "Study",
    "analyze",
    "difference",
    "evaluate",
    "mean_interval",
    "read_study",
    "run_study",
    "train",
]

__getattr__ = lazy_names(__name__, _HOMES)
