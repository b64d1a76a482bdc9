"""svfseg: few-shot segmentation by singular value fine-tuning.

The method for any PyTorch model (`apply_svf` and its kin), the laboratory (`train`, `evaluate`)
and prediction on your own images (`Predictor`). Names load what they need on first use.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "apply_svf": "svfseg.svf",
    "merge_svf": "svfseg.svf",
    "plan_svf": "svfseg.svf",
    "svf_parameters": "svfseg.svf",
    "svf_summary": "svfseg.svf",
    "save_adapter": "svfseg.svf",
    "load_adapter": "svfseg.svf",
    "build_model": "svfseg.models",
    "build_backbone": "svfseg.models",
    "train": "svfseg.train",
    "evaluate": "svfseg.evaluate",
    "Predictor": "svfseg.predict",
    "TrainConfig": "svfseg.config",
    "EvalConfig": "svfseg.config",
}
__all__ = ["__version__", *_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'svfseg' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
