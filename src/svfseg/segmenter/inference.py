"""Compute features of supports, and probability maps of images, with a fitted segmenter."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from svfseg.data.images import Array
from svfseg.data.index import Sample
from svfseg.data.transforms import (
    class_mask,
    fit_image,
    fit_mask,
    fitted_size,
    logits_at_original,
    to_tensor,
)
from svfseg.models import Head


class ClassMaps(NamedTuple):
    """What a model says of an image for each class.

    Attributes:
        maps: (classes, height, width), probability, float32 on the CPU.
        presence: the presence score of each class, see `svfseg.models.Head.presence`.
    """

    maps: Tensor
    presence: tuple[float, ...]


# Class id -> the features of its supports, opaque outside of their head.
SupportFeatures = Mapping[int, Sequence[Any]]


def by_class(
    per_support: Iterable[Mapping[int, Any]], class_ids: Iterable[int]
) -> dict[int, list[Any]]:
    """Gather the features of `Predictor.encode_supports` by class id."""
    supports = list(per_support)
    return {c: [features[c] for features in supports if c in features] for c in class_ids}


@dataclass(frozen=True)
class Predictor:
    """A model, and how images are fitted to it.

    Attributes:
        head: in eval mode.
        size: side of the square that images or tiles are fitted to, in pixels.
        device: device to compute on.
        batch: images or tiles at once.
    """

    head: Head
    size: int
    device: str = "cpu"
    batch: int = 4

    @torch.inference_mode()
    def encode_supports(
        self, samples: Sequence[Sample], class_ids: Iterable[int]
    ) -> list[dict[int, Any]]:
        """Compute the features of each support by class id, without classes that vanish in it."""
        classes = list(class_ids)
        encoded: list[dict[int, Any]] = []
        for sample in samples:
            masks = {c: fit_mask(class_mask(sample.mask, c), self.size) for c in classes}
            masks = {c: mask for c, mask in masks.items() if (mask == 1).any()}
            if not masks:
                encoded.append({})
                continue
            image = fit_image(to_tensor(sample.image), self.size)[None].to(self.device)
            on_device = [mask.to(self.device) for mask in masks.values()]
            features = self.head.encode(image, on_device, query=False)[1]
            # rounded as a task file keeps them, so that they give the same masks when read again
            rounded = [type(f)(*(tensor.half().float() for tensor in f)) for f in features]
            encoded.append(dict(zip(masks, rounded, strict=True)))
        return encoded

    @torch.inference_mode()
    def predict_maps(self, images: Sequence[Array], supports: SupportFeatures) -> list[ClassMaps]:
        """Compute the maps of all classes, running each image through the backbone once.

        Args:
            images: (height, width, 3) each.
            supports: features of the classes, in the order of the maps.
        """
        return [
            maps
            for at in range(0, len(images), self.batch)
            for maps in self._predict_batch(images[at : at + self.batch], list(supports.values()))
        ]

    def _predict_batch(
        self, images: Sequence[Array], classes: list[Sequence[Any]]
    ) -> list[ClassMaps]:
        batch = torch.stack([fit_image(to_tensor(image), self.size) for image in images])
        size = (batch.shape[-2], batch.shape[-1])
        encoded, _ = self.head.encode(batch.to(self.device), [])
        queries = [type(encoded)(*(t[i : i + 1] for t in encoded)) for i in range(len(images))]
        repeated = [query for query in queries for _ in classes]
        logits = self.head.decode(repeated, classes * len(queries), size).float().cpu()
        probabilities = logits.softmax(dim=1)[:, 1]
        results = []
        for i, image in enumerate(images):
            part = slice(i * len(classes), (i + 1) * len(classes))
            height, width = fitted_size(image.shape[0], image.shape[1], self.size)
            presence = tuple(
                self.head.presence(queries[i], shots, square[:height, :width], size)
                for shots, square in zip(classes, probabilities[part], strict=True)
            )
            own = [logits_at_original(each, *image.shape[:2]) for each in logits[part]]
            maps = torch.stack([each.softmax(dim=0)[1] for each in own])
            results.append(ClassMaps(maps, presence))
        return results
