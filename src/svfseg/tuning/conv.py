"""Train the convolutions of one kind of kernel."""

from svfseg.config import TuningConfig
from svfseg.models import Backbone
from svfseg.tuning.modules import is_pointwise, matching_layers, stages_pattern
from svfseg.tuning.strategy import InPlaceStrategy, Progress


class Conv(InPlaceStrategy):
    """Train the stages' convolutions with kernels of 3x3 and more, or those with 1x1."""

    def apply(self, backbone: Backbone, config: TuningConfig, progress: Progress | None) -> None:
        """See `Strategy.apply`."""
        for _, layer in matching_layers(backbone, stages_pattern(config.stages)):
            layer.requires_grad_(is_pointwise(layer) == (config.kernels == "pointwise"))
