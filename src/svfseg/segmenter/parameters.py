"""Check the parameters of a segmenter, and take one image or several."""

import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

from svfseg.errors import InputError
from svfseg.segmenter.adaptation import tuning_of


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Check the parameters of `svfseg.FewShotSegmenter`.

    Raises:
        InputError: one is of another type, out of its range, or not offered.
    """
    if parameters["adapt"] is not None:
        tuning_of(parameters["adapt"])
    for name in ("size", "batch", "steps", "threshold", "lr"):
        value = parameters[name]
        if value is not None and not isinstance(value, numbers.Real):
            raise InputError(f"{name} is {value!r}: expected a number")
    size, threshold, steps = (parameters[name] for name in ("size", "threshold", "steps"))
    if size is not None and size < 32:
        raise InputError(f"size is {size}: expected at least 32 pixels")
    if threshold is not None and not 0 < threshold < 1:
        raise InputError(f"threshold is {threshold}: expected between 0 and 1")
    if parameters["batch"] < 1:
        raise InputError(f"batch is {parameters['batch']}: expected 1 or more")
    if steps is not None and steps < 0:
        raise InputError(f"steps is {steps}: expected 0 or more")


def is_list(values: object) -> bool:
    """Whether a value is several images: a list, a tuple, or an array of paths."""
    if isinstance(values, np.ndarray):
        return values.ndim == 1 and values.dtype.kind in "UO"
    return isinstance(values, (list, tuple))


def as_list(values: Any) -> list[Any]:
    """Give one or several images as a list."""
    return list(values) if is_list(values) else [values]
