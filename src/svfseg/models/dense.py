"""Dense comparison: every position of the query against inside and outside of the supports."""

import copy
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from svfseg.models.backbone import Backbone, Features
from svfseg.models.geometry import PIXELS, Lattice, pool, sample
from svfseg.models.head import EpisodicHead
from svfseg.models.presence import presence_in_filled_part

# A support's inside and outside are each summed up by so many directions.
CENTERS = 128
_ROUNDS = 8
# How sharply the directions that lie nearest count more than the others, in cosine.
TEMPERATURE = 0.05


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
    """Directions of the class against those of its surroundings; one number trains.

    A position's descriptor is layer3 beside layer4, each of unit length. The supports' descriptors
    inside the mask, and outside, are summed up by spherical k-means (Dhillon and Modha, 2001). The
    logit of the class is scale * (a - b): a is the `nearness` to the directions inside, of all
    supports, and b that to those outside: the logarithm of a ratio of two densities, which does
    not grow with the number of directions or of supports. These are the foreground and background
    prototypes of PANet (Wang et al., ICCV 2019), many of each. All that is learned of segmentation
    is the scale, how sure a difference is: what the backbone knows of a class is used as it is.

    Args:
        backbone: the features.

    Attributes:
        nearest: 0, or how many of the nearest directions are averaged in place of `nearness`: the
            rule of tasks of format 1, whose thresholds were chosen with it.
    """

    support_type = DenseSupport
    any_shape: ClassVar[bool] = True

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.log_scale = nn.Parameter(torch.tensor(3.0))
        self.nearest = 0

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
        described = self.describe(self.backbone.encode(images))
        masks = support_mask.flatten(0, 1)
        shown = [show(described[batch + i], masks[i], self.lattice) for i in range(batch * shots)]
        return self.decode(
            [DenseQuery(described[i : i + 1]) for i in range(batch)],
            [shown[i * shots : (i + 1) * shots] for i in range(batch)],
            (query.shape[-2], query.shape[-1]),
        )

    def encode(
        self, image: Tensor, masks: Sequence[Tensor], query: bool = True
    ) -> tuple[DenseQuery | None, list[DenseSupport]]:
        """See `Head.encode`."""
        described = self.describe(self.backbone.encode(image))
        query_features = DenseQuery(described) if query else None
        return query_features, [show(described[0], mask, self.lattice) for mask in masks]

    def decode(
        self,
        queries: Sequence[DenseQuery],
        supports: Sequence[Sequence[DenseSupport]],
        size: tuple[int, int],
    ) -> Tensor:
        """See `Head.decode`."""
        maps = [
            self.scale() * self.compare(query, shots)[2]
            for query, shots in zip(queries, supports, strict=True)
        ]
        logit = sample(torch.stack(maps)[:, None], self.lattice, PIXELS, size)
        return torch.cat([torch.zeros_like(logit), logit], dim=1)

    def query(self, stages: Sequence[Tensor]) -> DenseQuery:
        """See `ComparingHead.query`."""
        return DenseQuery(self.describe(Features(*stages[1:])))

    @property
    def stretched(self) -> bool:
        """See `ComparingHead.stretched`."""
        return self.nearest > 0

    def scale(self) -> Tensor:
        """See `ComparingHead.scale`."""
        return self.log_scale.exp()

    def without_class(self, support: DenseSupport) -> DenseSupport:
        """See `ComparingHead.without_class`."""
        return DenseSupport(support.keys[:, :0], support.ground)

    def surroundings(self, support: DenseSupport) -> Tensor:
        """See `ComparingHead.surroundings`."""
        return support.ground

    def as_in_format_1(self) -> "Dense":
        """See `ComparingHead.as_in_format_1`."""
        older = copy.copy(self)
        older.nearest = 3
        return older

    def thin(self, support: DenseSupport, count: int) -> DenseSupport:
        """See `ComparingHead.thin`."""
        return DenseSupport(*(_thinned(side, count) for side in support))

    def alone(self, stages: Sequence[Tensor], mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `ComparingHead.alone`."""
        described = self.query(stages).deep[0]
        size = described.shape[-2:]
        inside, outside = positions(mask, self.lattice, size)
        return described, inside.reshape(size), outside.reshape(size)

    @property
    def lattice(self) -> Lattice:
        """Where the positions of its maps lie: those of layer3."""
        return self.backbone.lattices()[3]

    def describe(self, features: Features) -> Tensor:
        """Give unit vectors: (batch, channels of layer3 and layer4, height, width of layer3)."""
        layer4 = features.layer4
        if layer4.shape[-2:] != features.layer3.shape[-2:]:
            own = self.backbone.lattices()[4]
            layer4 = sample(layer4, own, self.lattice, features.layer3.shape[-2:])
        both = [F.normalize(features.layer3, dim=1), F.normalize(layer4, dim=1)]
        return torch.cat(both, dim=1) / 2**0.5

    def compare(self, query: DenseQuery, supports: Sequence[DenseSupport]) -> Tensor:
        """See `ComparingHead.compare`."""
        if not any(shot.keys.shape[1] for shot in supports):
            return query.deep.new_zeros(3, *query.deep.shape[-2:])
        if self.nearest:
            flat = query.deep[0].flatten(1)
            sides = [
                torch.stack([
                    (side.T @ flat).topk(self.nearest, dim=0).values.mean(dim=0) for side in shots
                ]).amax(dim=0)
                for shots in zip(*supports, strict=True)
            ]  # fmt: skip
            maps = torch.stack([*sides, sides[0] - sides[1]])
            return maps.reshape(3, *query.deep.shape[-2:])
        keys = torch.cat([shot.keys for shot in supports], dim=1)
        ground = torch.cat([shot.ground for shot in supports], dim=1)
        if not ground.shape[1]:  # the supports show nothing else
            ground = torch.zeros_like(keys[:, :1])
        return compared(query.deep[0], keys, ground)

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


def _thinned(side: Tensor, count: int) -> Tensor:
    if side.shape[1] <= count:
        return side
    return summed_up(side, torch.ones_like(side[0], dtype=torch.bool), count)


def compared(described: Tensor, keys: Tensor, ground: Tensor) -> Tensor:
    """Compare each position with the directions of a class and with those of its surroundings.

    Args:
        described: (channels, height, width), unit vectors.
        keys: (channels, m), unit vectors of the class.
        ground: (channels, n), those of its surroundings.

    Returns:
        (3, height, width): nearness to the class, to the surroundings, and their difference.
    """
    flat = described.flatten(1)
    inside, outside = nearness(flat, keys), nearness(flat, ground)
    maps = torch.stack([inside, outside, inside - outside])
    return maps.reshape(3, *described.shape[-2:])


def nearness(
    flat: Tensor, keys: Tensor, counted: Tensor | None = None, temperature: float = TEMPERATURE
) -> Tensor:
    """Give the soft maximum of the cosine to some directions: a log-mean-exp.

    Times 1 / temperature it is the logarithm of a kernel estimate of their density.

    Args:
        flat: (channels, n), unit vectors.
        keys: (channels, m), directions.
        counted: (m, n) bool, which directions count for which vector, at least one for each; None
            counts all.
        temperature: towards 0 the nearest alone counts, towards infinity all alike.

    Returns:
        (n,).
    """
    similar = (keys.T @ flat) / temperature
    weights = torch.ones_like(similar) if counted is None else counted.to(similar.dtype)
    if counted is not None:
        similar = similar.masked_fill(~counted, -torch.inf)
    # written out: not every runtime of ONNX knows torch.logsumexp, nor a number that may change
    highest = similar.amax(dim=0, keepdim=True)
    sums = (similar - highest).exp().sum(dim=0) / weights.sum(dim=0)
    return temperature * (highest[0] + sums.log())


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


def positions(mask: Tensor, lattice: Lattice, size: Sequence[int | Tensor]) -> tuple[Tensor, ...]:
    """Split positions into those that show a class and those that show what surrounds it.

    Args:
        mask: (image height, image width) of 0, 1 and 255.
        lattice: where the positions lie.
        size: rows and columns of positions.

    Returns:
        Two of (rows * columns,) bool.
    """
    inside = pool((mask == 1).float(), lattice, size).flatten()
    known = pool((mask != 255).float(), lattice, size).flatten()
    # a class smaller than a position has the positions that show most of it
    enough = (0.9 * inside.max()).clamp_max(0.6)
    return (inside >= enough) & (inside > 0), (inside < 0.1) & (known > 0.9)


def show(described: Tensor, mask: Tensor, lattice: Lattice) -> DenseSupport:
    """Sum up a support by directions inside and outside of its mask.

    Args:
        described: (channels, height, width) of `Dense.describe`.
        mask: (image height, image width) of 0, 1 and 255.
        lattice: where the positions lie.
    """
    marked, others = positions(mask, lattice, described.shape[-2:])
    flat = described.flatten(1)
    ground = summed_up(flat, others)
    return DenseSupport(summed_up(flat, marked), ground if others.any() else ground[:, :0])
