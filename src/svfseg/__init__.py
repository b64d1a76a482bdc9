"""svfseg: few-shot segmentation by singular value fine-tuning.

The method for any PyTorch model (`apply_svf` and its kin), the laboratory (`train`, `evaluate`)
and the tool for your own images (`FewShotSegmenter`). Names load what they need on first use.
"""

from typing import TYPE_CHECKING

from svfseg._lazy import lazy_names
from svfseg._version import __version__

if TYPE_CHECKING:  # what type checkers and editors see of the names below
    from svfseg.config import EvalConfig, TrainConfig
    from svfseg.lab.evaluation import evaluate
    from svfseg.lab.training import train
    from svfseg.models import build_backbone, build_model
    from svfseg.segmenter import FewShotSegmenter, Segmentation
    from svfseg.svf import (
        apply_svf,
        fuse,
        load_adapter,
        merge_svf,
        plan_svf,
        save_adapter,
        set_route,
        svf_parameters,
        svf_summary,
    )

_HOMES = {
    "apply_svf": "svfseg.svf",
    "fuse": "svfseg.svf",
    "set_route": "svfseg.svf",
    "merge_svf": "svfseg.svf",
    "plan_svf": "svfseg.svf",
    "svf_parameters": "svfseg.svf",
    "svf_summary": "svfseg.svf",
    "save_adapter": "svfseg.svf",
    "load_adapter": "svfseg.svf",
    "build_model": "svfseg.models",
    "build_backbone": "svfseg.models",
    "train": "svfseg.lab.training",
    "evaluate": "svfseg.lab.evaluation",
    "FewShotSegmenter": "svfseg.segmenter.estimator",
    "Segmentation": "svfseg.segmenter.results",
    "TrainConfig": "svfseg.config",
    "EvalConfig": "svfseg.config",
}
__all__ = [
    "EvalConfig",
    "FewShotSegmenter",
    "Segmentation",
    "TrainConfig",
    "__version__",
    "apply_svf",
    "build_backbone",
    "build_model",
    "evaluate",
    "fuse",
    "load_adapter",
    "merge_svf",
    "plan_svf",
    "save_adapter",
    "set_route",
    "svf_parameters",
    "svf_summary",
    "train",
]

__getattr__ = lazy_names(__name__, _HOMES)
