"""The SVF paper's baseline: prototype and prior, an ASPP decoder, one loss."""

from torch import Tensor

from svfseg.models.aspp import Decoder
from svfseg.models.backbone import Backbone
from svfseg.models.matching import Match
from svfseg.models.prototype import PrototypeHead


class Baseline(PrototypeHead):
    """PFENet's prototype and prior with a plain ASPP decoder (Sun et al., NeurIPS 2022).

    The head of BAM's meta learner alone. Unlike the published code, shots are averaged and both
    reductions train.

    Args:
        backbone: the features.
        hidden: channels of the head.
        dropout: share of reduced channels dropped in training.
    """

    def __init__(self, backbone: Backbone, hidden: int = 256, dropout: float = 0.5) -> None:
        super().__init__(backbone, hidden, dropout)
        self.decoder = Decoder(hidden)

    def logits(self, match: Match) -> Tensor:
        """See `PrototypeHead.logits`."""
        logits: Tensor = self.decoder(match)
        return logits
