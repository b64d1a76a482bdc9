"""Train the biases of some stages (BitFit: Ben Zaken et al., ACL 2022)."""

import re

from svfseg.config import TuningConfig
from svfseg.models import Backbone
from svfseg.tuning.modules import stages_pattern
from svfseg.tuning.strategy import InPlaceStrategy, Progress


class Bias(InPlaceStrategy):
    """Train the biases of the stages' layers and the shifts of their normalisation."""

    def apply(self, backbone: Backbone, config: TuningConfig, progress: Progress | None) -> None:
        """See `Strategy.apply`."""
        pattern = re.compile(stages_pattern(config.stages) + r"\.bias")
        for name, parameter in backbone.named_parameters():
            if pattern.fullmatch(name):
                parameter.requires_grad_(True)
