"""The parameters of a segmenter, as scikit-learn has them; and one image or several."""

import inspect
import math
import numbers
import os
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any, Self

import numpy as np

from svfseg.errors import InputError
from svfseg.segmenter.adaptation import tuning_of

# Longer side of images at most: their features alone would take gigabytes beyond.
LEAST = 32
LARGEST = 8192


class Parametrized:
    """What scikit-learn asks of an estimator: its parameters are those of its constructor."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Give the parameters of the constructor.

        Args:
            deep: unused; no parameter is an estimator.
        """
        return {name: getattr(self, name) for name in _parameters(type(self))}

    def set_params(self, **parameters: Any) -> Self:
        """Change parameters; what was fitted stays, and the next `fit` uses them.

        Raises:
            InputError: an unknown parameter.
        """
        known = _parameters(type(self))
        for name, value in parameters.items():
            if name not in known:
                raise InputError(f"unknown parameter {name}: expected one of {', '.join(known)}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        default = {n: p.default for n, p in _parameters(type(self)).items()}
        changed = {n: v for n, v in self.get_params().items() if v != default[n]}
        return f"{type(self).__name__}({', '.join(f'{n}={v!r}' for n, v in changed.items())})"

    def __sklearn_tags__(self) -> Any:
        """Give the tags that scikit-learn asks for, where it is installed."""
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=True),
            input_tags=InputTags(two_d_array=False, three_d_array=True, string=True),
        )

    def __sklearn_is_fitted__(self) -> bool:
        return "classes_" in vars(self)


def _parameters(kind: type[Parametrized]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(kind).parameters


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Check the parameters of `svfseg.FewShotSegmenter`.

    Raises:
        InputError: one is of another type, out of its range, or not offered.
    """
    if parameters["adapt"] is not None:
        tuning_of(parameters["adapt"])
    limits = (
        "size",
        "batch",
        "steps",
        "threshold",
        "lr",
        "seconds",
        "seconds_per_image",
        "overlap",
    )
    for name in limits:
        value = parameters[name]
        if value is not None and not isinstance(value, numbers.Real):
            raise InputError(f"{name} is {value!r}: expected a number")
    size, threshold, steps = (parameters[name] for name in ("size", "threshold", "steps"))
    if size is not None and not LEAST <= size <= LARGEST:
        bound = f"at least {LEAST}" if size < LEAST else f"at most {LARGEST}"
        raise InputError(f"size is {size}: expected {bound} pixels")
    seed = parameters["seed"]
    if not isinstance(seed, numbers.Integral) or not 0 <= int(seed) < 2**31:
        raise InputError(f"seed is {seed!r}: expected a whole number from 0 to {2**31 - 1}")
    if threshold is not None and not 0 < threshold < 1:
        raise InputError(f"threshold is {threshold}: expected between 0 and 1")
    lr = parameters["lr"]
    if lr is not None and not 0 < lr < math.inf:
        raise InputError(f"lr is {lr}: expected more than 0")
    if not 0 <= parameters["overlap"] < 1:
        raise InputError(f"overlap is {parameters['overlap']}: expected 0 to below 1")
    if parameters["batch"] < 1:
        raise InputError(f"batch is {parameters['batch']}: expected 1 or more")
    if not 0 <= parameters["seconds"] < math.inf:
        raise InputError(f"seconds is {parameters['seconds']}: expected 0 or more")
    limit = parameters["seconds_per_image"]
    if limit is not None and not limit > 0:
        raise InputError(f"seconds_per_image is {limit}: expected more than 0")
    if limit is not None and (size is not None or parameters["tile"]):
        other = "tile" if parameters["tile"] else "size"
        raise InputError(f"found {other} and seconds_per_image: give one of them")
    if steps is not None and steps < 0:
        raise InputError(f"steps is {steps}: expected 0 or more")


def is_list(values: object) -> bool:
    """Whether a value is several images: a list, an array of paths, a generator or the like."""
    if isinstance(values, (list, tuple)):
        return True
    if isinstance(values, (str, bytes, os.PathLike, Mapping)) or not isinstance(values, Iterable):
        return False
    if isinstance(values, (Iterator, Set)):
        return True
    array = np.asarray(values)
    return array.ndim == 1 and array.dtype.kind in "UO"


def as_list(values: Any) -> list[Any]:
    """Give one or several images as a list."""
    return list(values) if is_list(values) else [values]
