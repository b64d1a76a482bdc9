"""The tool: fit on a few marked images, predict others, write files for other programs.

Names load what they need on first use, so that a report is written without torch.
"""

from typing import TYPE_CHECKING

from svfseg._lazy import lazy_names

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

__getattr__ = lazy_names(__name__, _HOMES)
