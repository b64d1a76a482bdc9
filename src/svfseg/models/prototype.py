"""A head that decodes one comparison of a query with its supports: prototype and prior."""

from collections.abc import Sequence

from torch import Tensor

from svfseg.models.backbone import Backbone
from svfseg.models.functional import resize
from svfseg.models.head import EpisodicHead
from svfseg.models.matching import (
    Match,
    Matching,
    QueryFeatures,
    SupportFeatures,
    encode_episode,
)
from svfseg.models.presence import presence_in_filled_part


class PrototypeHead(EpisodicHead):
    """`Matching`, and a decoder of what it says: ``logits``.

    Args:
        backbone: the features.
        hidden: channels of the head.
        dropout: share of reduced channels dropped in training.
    """

    support_type = SupportFeatures

    def __init__(self, backbone: Backbone, hidden: int, dropout: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.matching = Matching(backbone.channels, hidden, dropout)

    def logits(self, match: Match) -> Tensor:
        """Decode a comparison to logits (batch, 2, height, width) at the features' size."""
        raise NotImplementedError

    def forward(self, query: Tensor, support: Tensor, support_mask: Tensor) -> Tensor:
        """Outline the supports' class in the query.

        Args:
            query: (batch, 3, height, width), RGB in 0 to 255.
            support: (batch, shots, 3, height, width).
            support_mask: (batch, shots, height, width); 1 is the class.

        Returns:
            Logits (batch, 2, height, width): background, foreground.
        """
        shots = self.matching(*encode_episode(self.backbone, query, support, support_mask))
        return resize(self.logits(shots.mix()), query.shape[-2:])

    def encode(
        self, image: Tensor, masks: Sequence[Tensor], query: bool = True
    ) -> tuple[QueryFeatures | None, list[SupportFeatures]]:
        """See `Head.encode` and `Matching.encode`."""
        return self.matching.encode(self.backbone, self.backbone.shallow(image), masks, query)

    def decode(
        self,
        queries: Sequence[QueryFeatures],
        supports: Sequence[Sequence[SupportFeatures]],
        size: tuple[int, int],
    ) -> Tensor:
        """See `Head.decode`."""
        return resize(self.logits(self.matching.compare(queries, supports).mix()), size)

    def presence(
        self,
        query: QueryFeatures,
        supports: Sequence[SupportFeatures],
        probability: Tensor,
        size: tuple[int, int],
    ) -> float:
        """See `Head.presence` and `presence_score`."""
        keys = [shot.keys for shot in supports]
        return presence_in_filled_part(query.deep, keys, probability, size)
