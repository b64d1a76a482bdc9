"""The contract of a strategy: what trains in a backbone, how it is merged, what is saved."""

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor

from svfseg.config import TuningConfig
from svfseg.errors import InputError
from svfseg.models import Backbone
from svfseg.tuning.state import tuned_tensors

# Called with (layers factored, layers in all).
Progress = Callable[[int, int], None]


@runtime_checkable
class Strategy(Protocol):
    """What trains of a backbone."""

    def apply(self, backbone: Backbone, config: TuningConfig, progress: Progress | None) -> None:
        """Leave trainable what is to train.

        Args:
            backbone: frozen throughout; its function must not change.
            config: the settings.
            progress: called with (layers factored, layers in all) where that takes time.

        Raises:
            InputError: settings that the strategy cannot use.
        """

    def merge(self, backbone: Backbone) -> None:
        """Put what was trained into plain weights, in place, as far as that is possible."""

    def state(self, backbone: Backbone) -> Mapping[str, Tensor]:
        """Give the tensors to save beside the singular values, by their names in the backbone."""

    def stages(self, config: TuningConfig) -> tuple[int, ...]:
        """Give the stages, 0 to 4, whose function changes in training."""


class InPlaceStrategy:
    """A strategy that trains weights where they are: there is nothing to merge."""

    def merge(self, backbone: Backbone) -> None:
        """See `Strategy.merge`."""

    def state(self, backbone: Backbone) -> Mapping[str, Tensor]:
        """See `Strategy.state`."""
        return tuned_tensors(backbone)

    def stages(self, config: TuningConfig) -> tuple[int, ...]:
        """See `Strategy.stages`."""
        return config.stages


class FunctionStrategy(InPlaceStrategy):
    """A function (backbone, config, progress) as a strategy.

    Args:
        function: leaves trainable what is to train.
    """

    def __init__(self, function: Callable[[Backbone, TuningConfig, Progress | None], None]) -> None:
        self.apply = function


def as_strategy(named: object, name: str) -> Strategy:
    """Give the strategy that a name stands for: a `Strategy`, a class of one, or a function.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(named, type):
        named = named()
    if isinstance(named, Strategy):
        return named
    if callable(named):
        return FunctionStrategy(named)
    raise InputError(f"strategy {name} is {named!r}: expected a Strategy or a function")
