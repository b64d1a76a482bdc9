"""PFENet: prior-guided feature enrichment (Tian et al., TPAMI 2020)."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from svfseg.models.backbone import Backbone
from svfseg.models.functional import average_into, resize
from svfseg.models.matching import Match, classifier, encode_episode, merge, refine
from svfseg.models.prototype import PrototypeHead


class PFENet(PrototypeHead):
    """Query, prototype and prior enriched at several scales, finer guiding coarser.

    Args:
        backbone: the features.
        hidden: channels of the head.
        bins: side of each level, finest first: above 1 in positions (the published 60, 30, 15,
            8), up to 1 as a fraction of the feature map.
        dropout: share of reduced channels dropped in training.
    """

    def __init__(
        self,
        backbone: Backbone,
        hidden: int = 256,
        bins: Sequence[float] = (60, 30, 15, 8),
        dropout: float = 0.5,
    ) -> None:
        super().__init__(backbone, hidden, dropout)
        self.bins = tuple(bins)
        levels = range(len(self.bins))
        self.init_merge = nn.ModuleList(merge(2 * hidden + 1, hidden) for _ in levels)
        self.alpha_conv = nn.ModuleList(merge(2 * hidden, hidden) for _ in levels[1:])
        self.beta_conv = nn.ModuleList(refine(hidden) for _ in levels)
        self.inner_cls = nn.ModuleList(classifier(hidden) for _ in levels)
        self.res1 = merge(hidden * len(self.bins), hidden)
        self.res2 = refine(hidden)
        self.cls = classifier(hidden)

    def logits(self, match: Match) -> Tensor:
        """See `PrototypeHead.logits`."""
        return self.enrich(match)[0]

    def enrich(self, match: Match) -> tuple[Tensor, list[Tensor]]:
        """Give logits at the features' size, and those of each level at its own."""
        size = match.query.shape[-2:]
        levels: list[Tensor] = []
        inner: list[Tensor] = []
        for i, bin_size in enumerate(self.bins):
            side = self._side(bin_size, size)
            query = average_into(match.query, side)
            tiled = match.prototype.expand_as(query)
            x = self.init_merge[i](torch.cat([query, tiled, resize(match.prior, side)], dim=1))
            if i > 0:
                finer = resize(levels[-1], side)
                x = self.alpha_conv[i - 1](torch.cat([x, finer], dim=1)) + x
            x = self.beta_conv[i](x) + x
            inner.append(self.inner_cls[i](x))
            levels.append(resize(x, size))
        x = self.res1(torch.cat(levels, dim=1))
        x = self.res2(x) + x
        return self.cls(x), inner

    def loss(self, *tensors: Tensor, aux: float = 1.0) -> Tensor:
        """Give the cross-entropy of the output + ``aux`` times the mean over the levels.

        Args:
            tensors: query, support and support_mask as in `forward`, and target (batch, height,
                width) of 0, 1 and 255, which is ignored.
            aux: weight of the levels' own losses.
        """
        query, support, support_mask, target = tensors
        match = self.matching(*encode_episode(self.backbone, query, support, support_mask)).mix()
        outputs, inner = self.enrich(match)
        size, target = query.shape[-2:], target.long()
        main, *levels = (
            F.cross_entropy(resize(x, size), target, ignore_index=255) for x in (outputs, *inner)
        )
        return main + aux * torch.stack(levels).mean()

    @staticmethod
    def _side(bin_size: float, size: torch.Size) -> tuple[int, int]:
        if bin_size > 1:
            return int(bin_size), int(bin_size)
        height, width = (_share(extent, bin_size) for extent in size)
        return height, width


def _share(extent: Any, part: float) -> Any:
    """A part of an extent, at least 1; while a graph is traced extents are tensors and stay so."""
    if isinstance(extent, Tensor):
        return (extent * part).long().clamp_min(1)
    return max(1, int(extent * part))
