"""The tool: fit on a few marked images, predict the others, write files for other programs.

Names load what they need on first use, so that a report is written without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from svfseg.segmenter.estimator import FewShotSegmenter, NotFittedError
    from svfseg.segmenter.results import Segmentation

__all__ = ["FewShotSegmenter", "NotFittedError", "Segmentation"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'svfseg.segmenter' has no attribute {name!r}")
    home = "results" if name == "Segmentation" else "estimator"
    return getattr(importlib.import_module(f"svfseg.segmenter.{home}"), name)
