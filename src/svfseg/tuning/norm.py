"""Train the normalisation of some stages."""

import re

from svfseg.config import TuningConfig
from svfseg.models import Backbone
from svfseg.tuning.modules import stages_pattern
from svfseg.tuning.strategy import InPlaceStrategy, Progress


class Norm(InPlaceStrategy):
    """Train scale and shift of the stages' normalisation, and its statistics if config says so."""

    def apply(self, backbone: Backbone, config: TuningConfig, progress: Progress | None) -> None:
        """See `Strategy.apply`."""
        free_norms(backbone, config)


def free_norms(backbone: Backbone, config: TuningConfig) -> None:
    """Let the stages' normalisation train."""
    pattern = stages_pattern(config.stages)
    norms = {id(layer) for layer in backbone.norm_layers()}
    for name, layer in backbone.named_modules():
        if id(layer) in norms and re.fullmatch(pattern, name):
            layer.requires_grad_(True)
    if config.statistics:
        backbone.let_statistics_move(pattern)
