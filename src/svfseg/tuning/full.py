"""Train every convolution."""

from svfseg.config import TuningConfig
from svfseg.models import Backbone
from svfseg.models.backbone import STAGES
from svfseg.tuning.modules import matching_layers
from svfseg.tuning.strategy import InPlaceStrategy, Progress


class Full(InPlaceStrategy):
    """Train weights and biases of every convolution; `BackboneConfig.norm` rules normalisation."""

    def apply(self, backbone: Backbone, config: TuningConfig, progress: Progress | None) -> None:
        """See `Strategy.apply`."""
        for _, layer in matching_layers(backbone, ".*"):
            layer.requires_grad_(True)

    def stages(self, config: TuningConfig) -> tuple[int, ...]:
        """See `Strategy.stages`: all."""
        return tuple(range(STAGES))
