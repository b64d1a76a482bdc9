"""The common start of prototype heads: reduced features, class prototype and prior."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from svfseg.models.backbone import Backbone, Features
from svfseg.models.functional import (
    masked_average_pooling,
    prior_from_keys,
    prior_mask,
    resize,
)


class Match(NamedTuple):
    """A query next to what its supports say together.

    Attributes:
        query: (batch, hidden, height, width), reduced query features.
        prototype: (batch, hidden, 1, 1).
        prior: (batch, 1, height, width) in [0, 1].
    """

    query: Tensor
    prototype: Tensor
    prior: Tensor


class Shots(NamedTuple):
    """A query next to what each of its supports says.

    Attributes:
        query: (batch, hidden, height, width), reduced query features.
        prototypes: (batch, shots, hidden, 1, 1).
        priors: (batch, shots, 1, height, width) in [0, 1].
    """

    query: Tensor
    prototypes: Tensor
    priors: Tensor

    def mix(self, weights: Tensor | None = None) -> Match:
        """Average the shots, or sum them with weights of (batch, shots)."""
        if weights is None:
            return Match(self.query, self.prototypes.mean(dim=1), self.priors.mean(dim=1))
        shares = weights[..., None, None, None]
        return Match(
            self.query, (shares * self.prototypes).sum(dim=1), (shares * self.priors).sum(dim=1)
        )


class QueryFeatures(NamedTuple):
    """What a head needs of one query image, whatever its supports.

    Attributes:
        features: (1, hidden, height, width), reduced.
        deep: (1, channels, height, width) of layer4.
    """

    features: Tensor
    deep: Tensor


class SupportFeatures(NamedTuple):
    """What a head needs of one support image and its mask, whatever the query.

    Attributes:
        prototype: (1, hidden, 1, 1).
        keys: (channels, positions), columns of layer4 inside the mask, and one of zeros where
            the mask leaves something out.
    """

    prototype: Tensor
    keys: Tensor


class Matching(nn.Module):
    """Reduce layer2 and layer3, pool the supports under their masks, compare layer4.

    Two separate 1x1 reductions for query and support, prototype by masked average pooling, prior
    mask from layer4 (PFENet, TPAMI 2020; the same in BAM and in the SVF authors' baseline). Shots
    are averaged, so their number is the episode's, not the weights'.

    Args:
        channels: channels of the backbone's five stages.
        hidden: channels after the reduction.
        dropout: share of the reduced channels dropped in training.
    """

    def __init__(self, channels: tuple[int, ...], hidden: int, dropout: float) -> None:
        super().__init__()
        width = channels[2] + channels[3]
        self.down_query = reduce(width, hidden, dropout)
        self.down_supp = reduce(width, hidden, dropout)

    def forward(self, seen: Features, shown: Features, mask: Tensor) -> Shots:
        """Compare queries with their supports, from `encode_episode`.

        Args:
            seen: features of the queries, (batch, ...).
            shown: features of the supports, (batch * shots, ...), layer4 masked.
            mask: (batch * shots, 1, height, width) of 0 and 1.
        """
        query_features = self.down_query(middle(seen))
        support_features = self.down_supp(middle(shown))
        prototypes = masked_average_pooling(
            support_features, resize(mask, support_features.shape[-2:])
        )
        batch = len(query_features)
        shots = len(mask) // batch
        deep = seen.layer4.repeat_interleave(shots, dim=0)
        priors = resize(prior_mask(deep, shown.layer4), query_features.shape[-2:])
        return Shots(
            query_features,
            prototypes.reshape(batch, shots, *prototypes.shape[1:]),
            priors.reshape(batch, shots, *priors.shape[1:]),
        )

    def encode(
        self,
        backbone: Backbone,
        shallow: tuple[Tensor, ...],
        masks: Sequence[Tensor],
        query: bool,
    ) -> tuple[QueryFeatures | None, list[SupportFeatures]]:
        """Look at one image as a query and as a support of several masks, in one pass.

        Only layer4 sees a mask: all else is computed once.

        Args:
            backbone: encodes the image.
            shallow: features of `Backbone.shallow` of one image.
            masks: (height, width) each; 1 is the class.
            query: whether the query's view is wanted.
        """
        query_features = None
        if query:
            features = backbone.deepen(shallow)
            query_features = QueryFeatures(self.down_query(middle(features)), features.layer4)
        supports, reduced = [], None
        for values in masks:
            mask = (values == 1).to(shallow[0].dtype)[None, None]
            deepened = backbone.deepen(shallow, partial(_masked, mask=mask))
            if reduced is None:
                reduced = self.down_supp(middle(deepened))
            prototype = masked_average_pooling(reduced, resize(mask, reduced.shape[-2:]))
            inside = resize(mask, deepened.layer4.shape[-2:])[0, 0].flatten() > 0
            if not bool(inside.all()):
                inside[torch.nonzero(~inside)[0]] = True  # one column of zeros
            supports.append(SupportFeatures(prototype, deepened.layer4[0].flatten(1)[:, inside]))
        return query_features, supports

    def compare(
        self, queries: Sequence[QueryFeatures], supports: Sequence[Sequence[SupportFeatures]]
    ) -> Shots:
        """Stack queries, each with its own supports, into what `forward` gives."""
        features = torch.cat([query.features for query in queries])
        priors = [
            resize(
                prior_from_keys(query.deep, [support.keys for support in shots]),
                features.shape[-2:],
            )
            for query, shots in zip(queries, supports, strict=True)
        ]
        prototypes = [torch.cat([support.prototype for support in shots]) for shots in supports]
        return Shots(features, torch.stack(prototypes), torch.stack(priors))


def encode_episode(
    backbone: Backbone, query: Tensor, support: Tensor, support_mask: Tensor
) -> tuple[Features, Features, Tensor]:
    """Compute features of queries and of their supports, layer4 of these masked.

    Args:
        backbone: encodes both.
        query: (batch, 3, height, width), RGB in 0 to 255.
        support: (batch, shots, 3, height, width).
        support_mask: (batch, shots, height, width); 1 is the class, all else is not.

    Returns:
        Features of (batch, ...) and of (batch * shots, ...), and the masks (batch * shots, 1,
        height, width) as 0 and 1.
    """
    mask = (support_mask == 1).to(query.dtype).flatten(0, 1).unsqueeze(1)
    features = backbone.encode(support.flatten(0, 1), partial(_masked, mask=mask))
    return backbone.encode(query), features, mask


def middle(features: Features) -> Tensor:
    """Join layer3 and layer2 at layer3's size: (batch, both channels, height, width)."""
    layer2 = resize(features.layer2, features.layer3.shape[-2:])
    return torch.cat([features.layer3, layer2], dim=1)


def reduce(channels: int, hidden: int, dropout: float) -> nn.Sequential:
    """Build a 1x1 convolution, ReLU, and dropout of whole channels."""
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 1, bias=False), nn.ReLU(inplace=True), nn.Dropout2d(dropout)
    )


def merge(channels: int, hidden: int) -> nn.Sequential:
    """Build a 1x1 convolution and ReLU."""
    return nn.Sequential(nn.Conv2d(channels, hidden, 1, bias=False), nn.ReLU(inplace=True))


def refine(hidden: int) -> nn.Sequential:
    """Build two 3x3 convolutions with ReLU: the inside of a residual block."""
    return nn.Sequential(
        nn.Conv2d(hidden, hidden, 3, padding=1, bias=False),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, hidden, 3, padding=1, bias=False),
        nn.ReLU(inplace=True),
    )


def classifier(hidden: int) -> nn.Sequential:
    """Build a 3x3 convolution, ReLU, dropout, and a 1x1 to background and foreground."""
    return nn.Sequential(
        nn.Conv2d(hidden, hidden, 3, padding=1, bias=False),
        nn.ReLU(inplace=True),
        nn.Dropout2d(0.1),
        nn.Conv2d(hidden, 2, 1),
    )


def _masked(features: Tensor, mask: Tensor) -> Tensor:
    return features * resize(mask, features.shape[-2:])
