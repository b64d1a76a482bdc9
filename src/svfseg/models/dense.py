"""Dense comparison: every position of the query against inside and outside of the supports."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from svfseg.models.backbone import Backbone, Features
from svfseg.models.functional import average_into, resize
from svfseg.models.head import EpisodicHead, OnnxModules
from svfseg.models.presence import presence_in_filled_part

# A support's inside and outside are each summed up by so many directions, so that neither wins by
# its number of positions.
CENTERS = 32
_ROUNDS = 8
# Similarity to the class is the mean over so many nearest directions.
NEAREST = 3


class DenseQuery(NamedTuple):
    """A query image, whatever its supports.

    Attributes:
        deep: (1, channels, height, width), unit vectors.
    """

    deep: Tensor


class DenseSupport(NamedTuple):
    """A support image and its mask, whatever the query.

    Attributes:
        keys: (channels, `CENTERS`), unit vectors of the class.
        ground: the same of all else that is known.
    """

    keys: Tensor
    ground: Tensor


class Dense(EpisodicHead):
    """Nearest directions of the class against those of its surroundings; one number trains.

    A position's descriptor is layer3 beside layer4, each of unit length. The supports' descriptors
    inside the mask, and outside, are summed up by spherical k-means (Dhillon and Modha, 2001). The
    logit of the class is scale * (a - b): a is the mean cosine to the `NEAREST` directions inside,
    of the support where it is highest, and b the same outside. These are the foreground and
    background prototypes of PANet (Wang et al., ICCV 2019), many of each. All that is learned of
    segmentation is the scale, how sure a difference is: what the backbone knows of a class is used
    as it is, and supports add up instead of being averaged.

    Args:
        backbone: the features.
    """

    support_type = DenseSupport

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.log_scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, query: Tensor, support: Tensor, support_mask: Tensor) -> Tensor:
        """Outline the supports' class in the query.

        Args:
            query: (batch, 3, height, width), RGB in 0 to 255.
            support: (batch, shots, 3, height, width).
            support_mask: (batch, shots, height, width); 1 is the class, 255 unknown.

        Returns:
            Logits (batch, 2, height, width): background, foreground.
        """
        batch, shots = support.shape[:2]
        images = torch.cat([query, support.flatten(0, 1)])
        described = describe(self.backbone.encode(images))
        masks = support_mask.flatten(0, 1)
        shown = [show(described[batch + i], masks[i]) for i in range(batch * shots)]
        return self.decode(
            [DenseQuery(described[i : i + 1]) for i in range(batch)],
            [shown[i * shots : (i + 1) * shots] for i in range(batch)],
            (query.shape[-2], query.shape[-1]),
        )

    def encode(
        self, image: Tensor, masks: Sequence[Tensor], query: bool = True
    ) -> tuple[DenseQuery | None, list[DenseSupport]]:
        """See `Head.encode`."""
        described = describe(self.backbone.encode(image))
        query_features = DenseQuery(described) if query else None
        return query_features, [show(described[0], mask) for mask in masks]

    def decode(
        self,
        queries: Sequence[DenseQuery],
        supports: Sequence[Sequence[DenseSupport]],
        size: tuple[int, int],
    ) -> Tensor:
        """See `Head.decode`."""
        maps = [
            self.compare(
                query.deep,
                torch.stack([shot.keys for shot in shots]),
                torch.stack([shot.ground for shot in shots]),
            )
            for query, shots in zip(queries, supports, strict=True)
        ]
        logit = torch.cat(maps)
        return resize(torch.cat([torch.zeros_like(logit), logit], dim=1), size)

    def presence(
        self,
        query: DenseQuery,
        supports: Sequence[DenseSupport],
        probability: Tensor,
        size: tuple[int, int],
    ) -> float:
        """See `Head.presence` and `presence_score`."""
        keys = [shot.keys for shot in supports]
        return presence_in_filled_part(query.deep, keys, probability, size)

    def onnx_modules(self) -> OnnxModules:
        """See `Head.onnx_modules`."""
        return OnnxModules(_Supports(self), _Queries(self), DenseSupport._fields)

    def compare(self, deep: Tensor, keys: Tensor, ground: Tensor) -> Tensor:
        """Compute the logit of the class at the size of the features.

        Args:
            deep: (1, channels, height, width) of a query.
            keys: (shots, channels, `CENTERS`) of its supports.
            ground: the same of their surroundings.

        Returns:
            (1, 1, height, width).
        """
        flat = deep[0].flatten(1)
        difference = nearness(flat, keys) - nearness(flat, ground)
        logit: Tensor = self.log_scale.exp() * difference.reshape(1, 1, *deep.shape[-2:])
        return logit


def describe(features: Features) -> Tensor:
    """Give unit vectors: (batch, channels of layer3 and layer4, height, width of layer3)."""
    layer4 = resize(features.layer4, features.layer3.shape[-2:])
    both = [F.normalize(features.layer3, dim=1), F.normalize(layer4, dim=1)]
    return torch.cat(both, dim=1) / 2**0.5


def nearness(flat: Tensor, keys: Tensor) -> Tensor:
    """Mean cosine to the nearest directions of the support where it is highest.

    Args:
        flat: (channels, n), unit vectors.
        keys: (shots, channels, m), directions of each support.

    Returns:
        (n,).
    """
    similar = keys.transpose(1, 2) @ flat
    nearest: Tensor = similar.topk(NEAREST, dim=1).values.mean(dim=1).amax(dim=0)
    return nearest


def summed_up(vectors: Tensor, marked: Tensor, count: int = CENTERS) -> Tensor:
    """Sum up the marked directions by a few: spherical k-means from evenly spaced starts.

    The gradient flows through the means, not through what belongs to which. No step depends on
    how many are marked, so that it can be exported; fewer than ``count`` appear several times.

    Args:
        vectors: (channels, n), unit vectors.
        marked: (n,) bool, which of them count.
        count: number of directions.

    Returns:
        (channels, count), unit vectors; zeros where none is marked.
    """
    fixed, weights = vectors.detach(), marked.to(vectors.dtype)
    place = weights.cumsum(dim=0) - 1
    evenly = torch.arange(count, device=vectors.device, dtype=vectors.dtype) / (count - 1)
    start = (evenly * (weights.sum() - 1).clamp_min(0)).floor()
    centers = fixed @ (((place[:, None] - start).abs() < 0.5) * weights[:, None])
    for _ in range(_ROUNDS):
        nearest = (centers.T @ fixed).argmax(dim=0)
        belongs = F.one_hot(nearest, count).to(fixed.dtype) * weights[:, None]
        centers = F.normalize(fixed @ belongs + 1e-6 * centers, dim=0)
    return F.normalize(vectors @ belongs + 1e-6 * centers, dim=0)


def show(described: Tensor, mask: Tensor) -> DenseSupport:
    """Sum up a support by directions inside and outside of its mask.

    Args:
        described: (channels, height, width) of `describe`.
        mask: (image height, image width) of 0, 1 and 255.
    """
    size = described.shape[-2:]
    inside = average_into((mask == 1).float(), size).flatten()
    known = average_into((mask != 255).float(), size).flatten()
    flat = described.flatten(1)
    # a class smaller than a position has the positions that show most of it
    enough = (0.9 * inside.max()).clamp_max(0.6)
    marked = (inside >= enough) & (inside > 0)
    others = (inside < 0.1) & (known > 0.9)
    return DenseSupport(summed_up(flat, marked), summed_up(flat, others))


class _Supports(nn.Module):
    """Image (1, 3, h, w) and mask (h, w) of 0, 1, 255 -> keys and ground, (1, channels, n)."""

    def __init__(self, head: Dense) -> None:
        super().__init__()
        self.head = head

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode one support."""
        support = show(describe(self.head.backbone.encode(image))[0], mask)
        return support.keys[None], support.ground[None]


class _Queries(nn.Module):
    """Image (1, 3, h, w), keys and ground (shots, channels, n) -> probability (h, w)."""

    def __init__(self, head: Dense) -> None:
        super().__init__()
        self.head = head

    def forward(self, image: Tensor, keys: Tensor, ground: Tensor) -> Tensor:
        """Outline the class in one query."""
        logit = self.head.compare(describe(self.head.backbone.encode(image)), keys, ground)
        return resize(logit, image.shape[-2:]).sigmoid()[0, 0]
