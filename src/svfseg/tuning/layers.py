"""Train the convolutions of some stages."""

from svfseg.config import TuningConfig
from svfseg.models import Backbone
from svfseg.tuning.modules import matching_layers, stages_pattern
from svfseg.tuning.strategy import InPlaceStrategy, Progress


class Layers(InPlaceStrategy):
    """Train weights and biases of the stages' convolutions."""

    def apply(self, backbone: Backbone, config: TuningConfig, progress: Progress | None) -> None:
        """See `Strategy.apply`."""
        for _, layer in matching_layers(backbone, stages_pattern(config.stages)):
            layer.requires_grad_(True)
