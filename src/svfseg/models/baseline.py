"""The SVF paper's baseline: prototype and prior, an ASPP decoder, one loss."""

from collections.abc import Sequence

from torch import Tensor, nn

from svfseg.models.aspp import Decoder
from svfseg.models.backbone import Backbone
from svfseg.models.functional import resize
from svfseg.models.matching import Matching, QueryView, SupportView, encode_episode


class Baseline(nn.Module):
    """PFENet's prototype and prior with a plain ASPP decoder (Sun et al., NeurIPS 2022).

    The head of BAM's meta learner alone. Unlike the published code, shots are averaged and both
    reductions train.

    Args:
        backbone: the features.
        hidden: channels of the head.
        dropout: share of reduced channels dropped in training.
    """

    def __init__(self, backbone: Backbone, hidden: int = 256, dropout: float = 0.5) -> None:
        super().__init__()
        self.backbone = backbone
        self.matching = Matching(backbone.channels, hidden, dropout)
        self.decoder = Decoder(hidden)

    def forward(self, query: Tensor, support: Tensor, support_mask: Tensor) -> Tensor:
        """Outline the supports' class in the query.

        Args:
            query: (batch, 3, height, width), RGB in 0 to 255.
            support: (batch, shots, 3, height, width).
            support_mask: (batch, shots, height, width); 1 is the class.

        Returns:
            Logits (batch, 2, height, width): background, foreground.
        """
        episode = encode_episode(self.backbone, query, support, support_mask)
        return resize(self.decoder(self.matching(*episode).mix()), query.shape[-2:])

    def views(
        self, image: Tensor, masks: Sequence[Tensor], query: bool = True
    ) -> tuple[QueryView | None, list[SupportView]]:
        """See `Matching.views`: what `outline` needs of an image, computed once."""
        return self.matching.views(self.backbone, self.backbone.shallow(image), masks, query)

    def outline(
        self,
        queries: Sequence[QueryView],
        supports: Sequence[Sequence[SupportView]],
        size: tuple[int, int],
    ) -> Tensor:
        """Logits (batch, 2, *size) from views: what `forward` computes from images."""
        return resize(self.decoder(self.matching.compare(queries, supports).mix()), size)
