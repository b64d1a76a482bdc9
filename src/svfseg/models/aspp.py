"""The decoder of the SVF paper's baseline and of BAM's meta learner."""

import torch
from torch import Tensor, nn

from svfseg.models.matching import Match, classifier, merge, refine


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
        """Apply five dilations to (batch, hidden, height, width): 5 hidden channels."""
        mean = self.layer6_0(x.mean(dim=(2, 3), keepdim=True)).expand_as(x)
        views = [getattr(self, f"layer6_{i}")(x) for i in range(1, 5)]
        return torch.cat([mean, *views], dim=1)


class Decoder(nn.Module):
    """From a query next to its supports to logits, through an ASPP.

    Args:
        hidden: channels.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.init_merge = merge(2 * hidden + 1, hidden)
        self.ASPP_meta = ASPP(hidden)
        self.res1_meta = merge(5 * hidden, hidden)
        self.res2_meta = refine(hidden)
        self.cls_meta = classifier(hidden)

    def forward(self, match: Match) -> Tensor:
        """Compute logits (batch, 2, height, width) at the size of the features."""
        tiled = match.prototype.expand_as(match.query)
        x = self.init_merge(torch.cat([match.query, tiled, match.prior], dim=1))
        x = self.res1_meta(self.ASPP_meta(x))
        x = self.res2_meta(x) + x
        logits: Tensor = self.cls_meta(x)
        return logits


def _relu(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(layer, nn.ReLU())
