"""Measure what a strategy changed in a backbone: its spectrum and its activations."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from svfseg.data import Episode, Split
from svfseg.data.transforms import class_mask, fit_image, fit_mask, to_tensor
from svfseg.models import Backbone
from svfseg.svf.factorize import fold
from svfseg.svf.layers import FactoredLayer, factorize_layer, groups_of, is_transposed, weight_of
from svfseg.tuning.lora import is_lora
from svfseg.tuning.ssf import Scaled

STAGES = ("layer0", "layer1", "layer2", "layer3", "layer4")


class LayerSpectrum(NamedTuple):
    """Singular values of one layer's weight before and after training, groups one after another.

    Attributes:
        name: name of the layer.
        stage: 0 to 4.
        before: (values,), largest first within a group.
        after: the same; where s alone trained, each value is of the same singular vectors.
    """

    name: str
    stage: int
    before: Tensor
    after: Tensor

    @property
    def change(self) -> Tensor:
        """Relative change of each value; 0 where it was 0."""
        gap = self.after - self.before
        return torch.where(self.before > 0, gap / self.before.clamp_min(1e-30), 0)

    @property
    def moved(self) -> float:
        """Size of the change over the size of the spectrum (norms)."""
        return float((self.after - self.before).norm() / self.before.norm().clamp_min(1e-30))


class Focus(NamedTuple):
    """The mean activation inside the class over that outside, of one query image, per stage."""

    class_id: int
    ratios: tuple[float, ...]


def layer_spectra(before: Backbone, after: Backbone) -> list[LayerSpectrum]:
    """Compute the spectra of all layers whose weight changed.

    Where only singular values trained, they are paired by their singular vectors; elsewhere the
    spectra of both weights are paired by rank.

    Args:
        before: with the base weights.
        after: trained, factored or plain.
    """
    spectra = []
    layers = dict(after.named_modules())
    for name, layer in before.named_modules():
        if not isinstance(layer, (nn.Conv2d, nn.Linear)):
            continue
        other: Any = layers[name]
        stage = int(name.removeprefix("layer")[0])
        if isinstance(other, FactoredLayer) and other.svf_train == "S":
            start = factorize_layer(layer).s
            spectra.append(_spectrum(name, stage, start, other.singular_values))
            continue
        weights = layer.weight.detach(), _plain_weight(other)
        if not torch.equal(*weights):
            values = [torch.linalg.svdvals(_matrices(layer, w).double()) for w in weights]
            spectra.append(_spectrum(name, stage, *values))
    return spectra


def _spectrum(name: str, stage: int, before: Tensor, after: Tensor) -> LayerSpectrum:
    return LayerSpectrum(
        name, stage, *(x.detach().double().flatten().cpu() for x in (before, after))
    )


def _plain_weight(layer: Any) -> Tensor:
    if is_lora(layer):  # the addition counts
        tuned_weight: Tensor = layer.get_base_layer().weight + layer.get_delta_weight("default")
        return tuned_weight.detach()
    weight = weight_of(layer).detach()
    if not isinstance(layer, Scaled):
        return weight
    return weight * layer.ssf_scale.detach().view(-1, *(1,) * (weight.dim() - 1))


def _matrices(layer: nn.Module, weight: Tensor) -> Tensor:
    return fold(weight, groups_of(layer), is_transposed(layer))


def queries_of(
    source: Split, episodes: Sequence[Episode], size: int
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """List the distinct queries of the episodes.

    Yields:
        image (1, 3, size, size), mask (size, size) of 0, 1 and 255, and class id.
    """
    pairs = dict.fromkeys((episode.query, episode.class_id) for episode in episodes)
    for position, class_id in pairs:
        sample = source.index.load(position)
        image = fit_image(to_tensor(sample.image), size)[None]
        yield image, fit_mask(class_mask(sample.mask, class_id), size), class_id


def activation(features: Tensor) -> Tensor:
    """Compute the mean absolute activation over the channels: (height, width)."""
    return features[0].abs().mean(dim=0)


def focus(backbone: Backbone, image: Tensor, mask: Tensor) -> tuple[float, ...] | None:
    """Mean activation inside a mask over that outside, for each of the five stages.

    The SVF paper shows that tuned features turn to the foreground; this is that as a number, 1
    where features do not care. Positions count by how much of their cell is class, background or
    ignored (padding and unlabelled pixels count nowhere).

    Args:
        backbone: in eval mode.
        image: (1, 3, height, width), RGB in 0 to 255.
        mask: (height, width) of 0, 1 and 255.

    Returns:
        Five ratios; None if the mask has no class or no background.
    """
    marks = torch.stack([(mask == 1), (mask == 0)]).float()[None]
    if not bool(marks.flatten(2).sum(dim=2).gt(0).all()):
        return None
    ratios = []
    with torch.inference_mode():
        for features in backbone(image):
            shares = nn.functional.adaptive_avg_pool2d(marks, features.shape[-2:])[0]
            inside, outside = (
                float((activation(features) * share).sum() / share.sum()) for share in shares
            )
            ratios.append(inside / max(outside, 1e-30))
    return tuple(ratios)


def compare_focus(
    before: Backbone,
    after: Backbone,
    source: Split,
    episodes: Sequence[Episode],
    size: int,
    limit: int | None = None,
) -> tuple[list[Focus], list[Focus]]:
    """Compute `focus` of both backbones on the distinct queries, in the same order.

    Args:
        before: with the base weights.
        after: trained.
        source: the images.
        episodes: whose queries.
        size: side of the square that images are fitted to.
        limit: largest number of queries.
    """
    rows: tuple[list[Focus], list[Focus]] = ([], [])
    device = next(before.parameters()).device
    for image, mask, class_id in itertools.islice(queries_of(source, episodes, size), limit):
        first, second = (focus(b, image.to(device), mask.to(device)) for b in (before, after))
        if first is not None and second is not None:
            rows[0].append(Focus(class_id, first))
            rows[1].append(Focus(class_id, second))
    return rows
