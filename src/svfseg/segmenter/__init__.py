"""The tool: fit on a few marked images, predict others, write files for other programs.

Names load what they need on first use, so that a report is written without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see of the names below
    from svfseg.segmenter.batch import predict_folder
    from svfseg.segmenter.estimator import FewShotSegmenter, NotFittedError
    from svfseg.segmenter.report import write_report
    from svfseg.segmenter.results import Segmentation

_HOMES = {
    "predict_folder": "svfseg.segmenter.batch",
    "FewShotSegmenter": "svfseg.segmenter.estimator",
    "NotFittedError": "svfseg.segmenter.estimator",
    "write_report": "svfseg.segmenter.report",
    "Segmentation": "svfseg.segmenter.results",
}
__all__ = [
    "FewShotSegmenter",
    "NotFittedError",
    "Segmentation",
    "predict_folder",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'svfseg.segmenter' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
