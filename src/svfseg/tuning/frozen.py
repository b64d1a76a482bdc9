"""Train nothing in the backbone, the usual choice in few-shot segmentation."""

from svfseg.config import TuningConfig
from svfseg.models import Backbone
from svfseg.tuning.strategy import InPlaceStrategy, Progress


class Frozen(InPlaceStrategy):
    """Leave the backbone as it is."""

    def apply(self, backbone: Backbone, config: TuningConfig, progress: Progress | None) -> None:
        """See `Strategy.apply`: there is nothing to do."""

    def stages(self, config: TuningConfig) -> tuple[int, ...]:
        """See `Strategy.stages`: none."""
        return ()
