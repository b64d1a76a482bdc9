"""The SVF paper's baseline: prototype and prior, an ASPP decoder, one loss."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from svfseg.functional import resize
from svfseg.models.backbone import Backbone
from svfseg.models.matching import (
    Match,
    Matching,
    QueryView,
    SupportView,
    classifier,
    merge,
    refine,
)


class ASPP(nn.Module):
    """Five views of a feature map: its mean, 1x1, and 3x3 with dilation 6, 12 and 18."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.layer6_0 = _relu(nn.Conv2d(hidden, hidden, 1))
        self.layer6_1 = _relu(nn.Conv2d(hidden, hidden, 1))
        for i, rate in ((2, 6), (3, 12), (4, 18)):
            conv = nn.Conv2d(hidden, hidden, 3, padding=rate, dilation=rate)
            self.add_module(f"layer6_{i}", _relu(conv))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(batch, hidden, height, width) -> (batch, 5 hidden, height, width)."""
        mean = self.layer6_0(x.mean(dim=(2, 3), keepdim=True)).expand_as(x)
        views = [getattr(self, f"layer6_{i}")(x) for i in range(1, 5)]
        return torch.cat([mean, *views], dim=1)


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
        self.init_merge = merge(2 * hidden + 1, hidden)
        self.ASPP_meta = ASPP(hidden)
        self.res1_meta = merge(5 * hidden, hidden)
        self.res2_meta = refine(hidden)
        self.cls_meta = classifier(hidden)

    def forward(self, query: Tensor, support: Tensor, support_mask: Tensor) -> Tensor:
        """Outline the supports' class in the query.

        Args:
            query: (batch, 3, height, width), RGB in 0 to 255.
            support: (batch, shots, 3, height, width).
            support_mask: (batch, shots, height, width); 1 is the class.

        Returns:
            Logits (batch, 2, height, width): background, foreground.
        """
        match = self.matching(self.backbone, query, support, support_mask)
        return resize(self.decode(match), query.shape[-2:])

    def views(
        self, image: Tensor, masks: Sequence[Tensor], query: bool = True
    ) -> tuple[QueryView | None, list[SupportView]]:
        """See `Matching.views`: what `outline` needs of an image, computed once."""
        return self.matching.views(self.backbone, image, masks, query)

    def outline(
        self,
        queries: Sequence[QueryView],
        supports: Sequence[Sequence[SupportView]],
        size: tuple[int, int],
    ) -> Tensor:
        """Logits (batch, 2, *size) from views: what `forward` computes from images."""
        return resize(self.decode(self.matching.compare(queries, supports)), size)

    def decode(self, match: Match) -> Tensor:
        """Logits at the features' size."""
        tiled = match.prototype.expand_as(match.query)
        x = self.init_merge(torch.cat([match.query, tiled, match.prior], dim=1))
        x = self.res1_meta(self.ASPP_meta(x))
        x = self.res2_meta(x) + x
        return cast(Tensor, self.cls_meta(x))


def _relu(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(layer, nn.ReLU())
