"""Train the singular values of some stages (Sun et al., NeurIPS 2022)."""

from svfseg.config import TuningConfig
from svfseg.models import Backbone
from svfseg.svf import apply_svf, fuse, merge_svf, set_route
from svfseg.tuning.modules import stages_pattern
from svfseg.tuning.norm import free_norms
from svfseg.tuning.state import has_factored
from svfseg.tuning.strategy import InPlaceStrategy, Progress


class Svf(InPlaceStrategy):
    """Factor the stages' layers and train their singular values.

    Args:
        with_norm: also train the stages' normalisation.
    """

    def __init__(self, with_norm: bool = False) -> None:
        self.with_norm = with_norm

    def apply(self, backbone: Backbone, config: TuningConfig, progress: Progress | None) -> None:
        """See `Strategy.apply`."""
        target = stages_pattern(config.stages)
        apply_svf(backbone, target, None, config.factors, config.parametrization, progress)
        set_route(backbone, config.route)
        if self.with_norm:
            free_norms(backbone, config)
        if config.route != "differentiable":
            fuse(backbone)

    def merge(self, backbone: Backbone) -> None:
        """See `Strategy.merge`: plain layers again."""
        if has_factored(backbone):
            merge_svf(backbone)
