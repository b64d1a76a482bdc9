"""Select the layers of a backbone that a strategy trains."""

import re

from torch import nn

from svfseg.config import TuningConfig
from svfseg.errors import InputError
from svfseg.svf.class_swap import mixed


def stages_pattern(stages: tuple[int, ...]) -> str:
    """Give a regular expression for the layers of some stages of a backbone.

    Raises:
        InputError: a stage out of 0 to 4, or none.
    """
    if not stages or set(stages) - set(range(5)):
        raise InputError(f"tuning.stages is {list(stages)}: expected one or more of 0 to 4")
    return rf"layer[{''.join(map(str, sorted(set(stages))))}](\..*)?"


def matching_layers(net: nn.Module, pattern: str) -> list[tuple[str, nn.Conv2d | nn.Linear]]:
    """List (name, layer) of the convolutions and linear layers whose whole name matches."""
    return [
        (name, layer)
        for name, layer in net.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and re.fullmatch(pattern, name)
    ]


def is_pointwise(layer: nn.Conv2d | nn.Linear) -> bool:
    """Whether a layer looks at one position at a time."""
    return isinstance(layer, nn.Linear) or set(layer.kernel_size) == {1}


def checked_rank(config: TuningConfig) -> int:
    """Give the rank of a config.

    Raises:
        InputError: it is not positive.
    """
    if config.rank < 1:
        raise InputError(f"tuning.rank is {config.rank}: expected 1 or more")
    return config.rank


def extend(module: nn.Module, kind: type[nn.Module]) -> None:
    """Make a module one that also does what ``kind`` adds, by a change of class."""
    base = type(module)
    module.svf_base = base  # type: ignore[assignment]
    module.__class__ = mixed(kind, base, kind.__name__)
