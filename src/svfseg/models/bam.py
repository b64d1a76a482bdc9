"""BAM: a meta learner, and a base learner that excludes base classes (Lang et al., CVPR 2022)."""

import copy
from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from svfseg.errors import InputError
from svfseg.models.aspp import Decoder
from svfseg.models.backbone import STAGES, Backbone, WholeBackbone
from svfseg.models.functional import gram, gram_difference, resize
from svfseg.models.head import EPISODE, EpisodicHead
from svfseg.models.matching import Match, Matching, QueryFeatures, SupportFeatures, encode_episode
from svfseg.models.presence import presence_in_filled_part
from svfseg.models.pspnet import BaseLearner, PSPNet


class Maps(NamedTuple):
    """Logits at one size.

    Attributes:
        final: logits of the ensemble, (batch, 2, height, width).
        meta: logits of the meta learner, the same shape.
        base: logits of the base learner, (batch, 1 + classes, height, width).
    """

    final: Tensor
    meta: Tensor
    base: Tensor


class BamQuery(NamedTuple):
    """A query image, whatever its supports: see `QueryFeatures`; gram (1, c, c), base logits."""

    features: Tensor
    deep: Tensor
    gram: Tensor
    base: Tensor


class BamSupport(NamedTuple):
    """A support image, whatever the query: see `SupportFeatures`; gram (1, c, c) of the image."""

    prototype: Tensor
    keys: Tensor
    gram: Tensor


class BAM(EpisodicHead):
    """The SVF baseline's head, and an ensemble with the base classes that PSPNet sees.

    The base learner is frozen and always in eval mode. It shares the backbone until a strategy
    tunes stages of it: then it keeps plain copies of those, and shares all others (`keep_base`).

    Args:
        backbone: the features, trained on the base classes (`take_base`).
        classes: base classes, without background.
        hidden: channels of the meta learner.
        dropout: share of reduced channels dropped in training.
        shots: supports that the learned weighting of shots is for; 1 has none.
    """

    support_type = BamSupport
    inputs: ClassVar[tuple[str, ...]] = (*EPISODE, "base_target", "class_number")

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        hidden: int = 256,
        dropout: float = 0.5,
        shots: int = 1,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.matching = Matching(backbone.channels, hidden, dropout)
        self.decoder = Decoder(hidden)
        self.learner_base = BaseLearner(backbone.channels[4], classes, 2 * hidden)
        self.learner_base.requires_grad_(False).eval()
        self.base_stages = nn.ModuleDict()
        # what is adjusted first, and psi or the base learner's foreground second
        self.gram_merge = nn.Conv2d(2, 1, 1, bias=False)
        self.cls_merge = nn.Conv2d(2, 1, 1, bias=False)
        for layer in (self.gram_merge, self.cls_merge):
            with torch.no_grad():
                layer.weight.copy_(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1))
        self.base_classes = classes
        self.shots = shots
        self.trained_shots = shots if shots > 1 else None
        if shots > 1:
            self.kshot_rw = nn.Sequential(nn.Conv2d(shots, 2, 1), nn.ReLU(), nn.Conv2d(2, shots, 1))

    def take_base(self, base: PSPNet) -> None:
        """Start from a base learner: its backbone for both branches, and its classifier.

        Raises:
            InputError: another backbone, or another number of classes.
        """
        for own, source in (
            (self.backbone, base.backbone),
            (self.learner_base, base.learner_base),
        ):
            try:
                own.load_state_dict(source.state_dict())
            except RuntimeError as error:
                raise InputError(
                    "the base learner is of another backbone, width or number of classes: "
                    f"{str(error).splitlines()[-1].strip()}"
                ) from error

    def keep_base(self, stages: Iterable[int]) -> None:
        """Copy the stages that are about to change, for the base learner, frozen.

        Raises:
            InputError: the backbone has no stages that could be told apart.
        """
        if stages and isinstance(self.backbone, WholeBackbone):
            raise InputError("bam needs a backbone that can be cut into stages to tune it")
        for index in sorted(set(stages)):
            frozen_stage = copy.deepcopy(self.backbone.stage(index)).requires_grad_(False).eval()
            self.base_stages[f"layer{index}"] = frozen_stage

    def train(self, mode: bool = True) -> "BAM":
        """Set the mode, but for the base learner's."""
        super().train(mode)
        self.learner_base.eval()
        self.base_stages.eval()
        return self

    def forward(self, query: Tensor, support: Tensor, support_mask: Tensor) -> Tensor:
        """Outline the supports' class in the query.

        Args:
            query: (batch, 3, height, width), RGB in 0 to 255.
            support: (batch, shots, 3, height, width).
            support_mask: (batch, shots, height, width); 1 is the class.

        Returns:
            Logits (batch, 2, height, width): background, foreground.
        """
        return self.maps(query, support, support_mask).final

    def maps(
        self,
        query: Tensor,
        support: Tensor,
        support_mask: Tensor,
        class_number: Tensor | None = None,
    ) -> Maps:
        """Compute all three outputs at the query's size.

        Args:
            query: as in `forward`.
            support: as in `forward`.
            support_mask: as in `forward`.
            class_number: (batch,), the episode's class among the base classes, from 1: in
                training the base learner's word on it is left out.
        """
        seen, shown, mask = encode_episode(self.backbone, query, support, support_mask)
        grams = channel_cosines(shown.layer2, shown.layer3)
        grams = grams.reshape(*support.shape[:2], *grams.shape[1:])
        own = channel_cosines(seen.layer2, seen.layer3)
        psi = gram_difference(own[:, None], grams)
        weights = self.shot_weights(psi)
        match = self.matching(seen, shown, mask).mix(weights)
        base = self._base(query, seen[:3], seen.layer4)
        final, meta = self._ensemble(match, (weights * psi).sum(dim=1), base, class_number)
        size = query.shape[-2:]
        return Maps(resize(final, size), resize(meta, size), resize(base, size))

    def encode(
        self, image: Tensor, masks: Sequence[Tensor], query: bool = True
    ) -> tuple[BamQuery | None, list[BamSupport]]:
        """See `Head.encode`; with Gram matrices, and with a query the base logits."""
        shallow = self.backbone.shallow(image)
        channels = channel_cosines(shallow[1], shallow[2])
        seen, shown = self.matching.encode(self.backbone, shallow, masks, query)
        supports = [BamSupport(*view, channels) for view in shown]
        if seen is None:
            return None, supports
        return BamQuery(*seen, channels, self._base(image, shallow[:3], seen.deep)), supports

    def decode(
        self,
        queries: Sequence[BamQuery],
        supports: Sequence[Sequence[BamSupport]],
        size: tuple[int, int],
    ) -> Tensor:
        """See `Head.decode`."""
        shots = self.matching.compare(
            [QueryFeatures(query.features, query.deep) for query in queries],
            [[SupportFeatures(view.prototype, view.keys) for view in views] for views in supports],
        )
        grams = torch.stack([torch.cat([view.gram for view in views]) for views in supports])
        psi = gram_difference(torch.stack([query.gram for query in queries]), grams)
        weights = self.shot_weights(psi)
        base = torch.cat([query.base for query in queries])
        final, _ = self._ensemble(shots.mix(weights), (weights * psi).sum(dim=1), base, None)
        return resize(final, size)

    def shot_weights(self, psi: Tensor) -> Tensor:
        """Weigh the shots: (batch, shots) that sum to 1.

        With as many shots as it was made for, BAM's: psi is sorted, goes through two 1x1
        convolutions, is unsorted again and normalised. Other numbers of shots read the same
        function of rank: the sorted psi are interpolated linearly to the trained number of ranks,
        and the outcome back. A head trained at one shot counts all shots alike.

        Args:
            psi: (batch, shots).
        """
        shots = psi.shape[1]
        if self.shots == 1 or shots == 1:
            return torch.full_like(psi, 1 / shots)
        ordered, order = psi.sort(dim=1)
        ranks = _at_ranks(ordered, self.shots)
        scores = _at_ranks(self.kshot_rw(ranks[..., None, None])[..., 0, 0], shots)
        return scores.gather(1, order.argsort(dim=1)).softmax(dim=1)

    def presence(
        self,
        query: BamQuery,
        supports: Sequence[BamSupport],
        probability: Tensor,
        size: tuple[int, int],
    ) -> float:
        """See `Head.presence` and `presence_score`."""
        keys = [shot.keys for shot in supports]
        return presence_in_filled_part(query.deep, keys, probability, size)

    def loss(self, *tensors: Tensor, aux: float = 1.0) -> Tensor:
        """Give the cross-entropy of the ensemble + ``aux`` times those of the two learners.

        The base learner is frozen: its term moves nothing, and is there as in the published loss.

        Args:
            tensors: query, support and support_mask as in `forward`; target (batch, height,
                width) of 0, 1 and 255, which is ignored; base_target, the same of 0, the base
                classes from 1, and 255; and class_number (batch,), the episode's class among the
                base classes, from 1.
            aux: weight of the learners' own losses.
        """
        query, support, support_mask, target, base_target, class_number = tensors
        maps = self.maps(query, support, support_mask, class_number)
        targets = (target.long(), target.long(), base_target.long())
        final, meta, base = (
            F.cross_entropy(logits.float(), goal, ignore_index=255)
            for logits, goal in zip(maps, targets, strict=True)
        )
        return final + aux * (meta + base)

    def _base(self, image: Tensor, shallow: Sequence[Tensor], deep: Tensor) -> Tensor:
        """The base learner's logits at its features' size.

        It goes its own way from the first stage that was tuned; what comes before is shared.
        """
        with torch.no_grad():
            if not self.base_stages:
                logits: Tensor = self.learner_base(deep)
                return logits
            first = min(int(name.removeprefix("layer")) for name in self.base_stages)
            # layer1 is the first whose output is at hand
            start = first if first > 1 else 0
            x = self.backbone.normalize(image) if start == 0 else shallow[start - 2]
            for index in range(start, STAGES):
                name = f"layer{index}"
                is_copied = name in self.base_stages
                x = (self.base_stages[name] if is_copied else self.backbone.stage(index))(x)
            own: Tensor = self.learner_base(x)
            return own

    def _ensemble(
        self, match: Match, psi: Tensor, base: Tensor, class_number: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(final, meta) logits at the features' size."""
        meta = self.decoder(match)
        background, foreground = meta.softmax(dim=1).split(1, dim=1)
        shares = base.softmax(dim=1)
        others = shares[:, 1:].sum(dim=1, keepdim=True)
        if class_number is not None:
            others = others - shares.gather(
                1, class_number.view(-1, 1, 1, 1).expand(-1, 1, *shares.shape[2:])
            )
        others = resize(others, meta.shape[-2:])
        tiled = psi.view(-1, 1, 1, 1).expand_as(foreground)
        background = self.gram_merge(torch.cat([background, tiled], dim=1))
        foreground = self.gram_merge(torch.cat([foreground, tiled], dim=1))
        background = self.cls_merge(torch.cat([background, others], dim=1))
        return torch.cat([background, foreground], dim=1), meta


def channel_cosines(layer2: Tensor, layer3: Tensor) -> Tensor:
    """Compute the cosines between channels of layer2, resized to layer3 where the two differ.

    They differ where the network has a stride between them, as VGG-16 has.

    Args:
        layer2: (batch, channels, height, width).
        layer3: gives the size.

    Returns:
        (batch, channels, channels).
    """
    return gram(resize(layer2, layer3.shape[-2:]))


def _at_ranks(values: Tensor, count: int) -> Tensor:
    """(batch, n) values by rank, read at ``count`` ranks evenly from first to last."""
    if values.shape[1] == count:
        return values
    return F.interpolate(values[:, None], size=count, mode="linear", align_corners=True)[:, 0]
