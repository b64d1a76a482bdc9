"""Compute features of supports, and probability maps of images, with a fitted segmenter."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from svfseg.data.images import Array
from svfseg.data.index import Sample
from svfseg.data.transforms import class_mask, to_ids
from svfseg.models import Head
from svfseg.models.decoder import Decoder, enlarged
from svfseg.models.head import ComparingHead
from svfseg.models.refine import guided_filter
from svfseg.segmenter.resizing import Fitted, at_original, fit_image, fit_mask


class Answer(NamedTuple):
    """What a model says of fitted images of one shape.

    Attributes:
        queries: the features of each image.
        logits: (batch, classes, height, width), relative to the background's.
        alone: the same by the comparison with the supports alone, without a decoder: it tells
            best whether a class is there at all.
    """

    queries: list[Any]
    logits: Tensor
    alone: Tensor


class FittedAnswer(NamedTuple):
    """What a model says of one marked image as the network sees it, where the image fills it.

    Attributes:
        logits: (classes, height, width), on the CPU.
        alone: the same, see `Answer`.
        ids: (height, width), the marks.
    """

    logits: Tensor
    alone: Tensor
    ids: Tensor


class ClassMaps(NamedTuple):
    """What a model says of an image for each class.

    Attributes:
        logits: (classes, height, width), relative to the background's, float32 on the CPU.
        presence: the presence score of each class.
    """

    logits: Tensor
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
        size: longer side to which images or tiles are fitted, in pixels.
        device: device to compute on.
        batch: images or tiles at once.
        decoder: what was fitted to the supports, for a `ComparingHead`; None answers by the
            head alone.
        share: how far the decoder is trusted, 0 to 1.
        negatives: features of images that show no class, for a `ComparingHead`.
    """

    head: Head
    size: int
    device: str = "cpu"
    batch: int = 4
    decoder: Decoder | None = None
    share: float = 1.0
    negatives: tuple[Any, ...] = ()

    def fit(self, image: Array) -> Fitted:
        """Fit an image (height, width, 3) to the network."""
        return fit_image(image, self.size, self.head.any_shape)

    @torch.inference_mode()
    def encode_supports(
        self, samples: Sequence[Sample], class_ids: Iterable[int]
    ) -> list[dict[int, Any]]:
        """Compute the features of each support by class id, without classes that vanish in it."""
        classes = list(class_ids)
        encoded: list[dict[int, Any]] = []
        for sample in samples:
            ids = fit_mask(to_ids(sample.mask), self.size, self.head.any_shape)
            masks = {c: class_mask(ids, c) for c in classes if bool((ids == c).any())}
            if not masks:
                encoded.append({})
                continue
            image = self.fit(sample.image).image[None].to(self.device)
            on_device = [mask.to(self.device) for mask in masks.values()]
            features = self.head.encode(image, on_device, query=False)[1]
            encoded.append(dict(zip(masks, map(rounded, features), strict=True)))
        return encoded

    @torch.inference_mode()
    def encode_negatives(self, samples: Sequence[Sample]) -> list[Any]:
        """Compute the features of images that show no class; none where the head has no use."""
        head = self.head
        if not isinstance(head, ComparingHead):
            return []
        count = max(2, NEGATIVE_DIRECTIONS // max(1, len(samples)))
        encoded = []
        for sample in samples:
            ids = fit_mask(to_ids(sample.mask), self.size, self.head.any_shape).to(self.device)
            image = self.fit(sample.image).image[None].to(self.device)
            (features,) = self.head.encode(image, [ids], query=False)[1]
            encoded.append(rounded(head.thin(head.without_class(features), count)))
        return encoded

    @torch.inference_mode()
    def predict_maps(self, images: Sequence[Array], supports: SupportFeatures) -> list[ClassMaps]:
        """Compute the maps of all classes, running each image through the backbone once.

        Args:
            images: (height, width, 3) each.
            supports: features of the classes, in the order of the maps.
        """
        results: list[ClassMaps] = []
        for at in range(0, len(images), self.batch):
            part = images[at : at + self.batch]
            fitted = [self.fit(image) for image in part]
            answers: dict[int, ClassMaps] = {}
            for shape in dict.fromkeys(f.image.shape for f in fitted):  # of one shape at once
                numbers = [i for i, f in enumerate(fitted) if f.image.shape == shape]
                alike = self._answer([fitted[i] for i in numbers], list(supports.values()), [
                    (part[i].shape[0], part[i].shape[1]) for i in numbers
                ])  # fmt: skip
                answers |= dict(zip(numbers, alike, strict=True))
            results += [answers[i] for i in range(len(part))]
        return results

    def _answer(
        self, fitted: Sequence[Fitted], classes: list[Sequence[Any]], sizes: list[tuple[int, int]]
    ) -> list[ClassMaps]:
        """Answer images of one fitted shape; ``sizes`` are their own heights and widths."""
        images = torch.stack([each.image for each in fitted]).to(self.device)
        queries, logits, alone = self.logits(images, classes)
        size = (images.shape[-2], images.shape[-1])
        results = []
        for query, each, own, logit, compared in zip(
            queries, fitted, sizes, logits.float().cpu(), alone.float().cpu(), strict=True
        ):
            filled = compared[:, : each.height, : each.width]
            presence = tuple(
                self._presence(query, shots, part, size)
                for shots, part in zip(classes, filled, strict=True)
            )
            results.append(ClassMaps(at_original(logit, each, *own), presence))
        return results

    def _presence(
        self, query: Any, shots: Sequence[Any], logit: Tensor, size: tuple[int, int]
    ) -> float:
        """Score by the comparison itself, or as the head does whose logits are stretched."""
        if isinstance(self.head, ComparingHead) and not self.head.stretched:
            return presence_score(logit)
        return self.head.presence(query, shots, logit.sigmoid(), size)

    @torch.inference_mode()
    def fitted_logits(self, sample: Sample, supports: SupportFeatures) -> FittedAnswer:
        """Compute the logits of one marked image as the network sees it."""
        fitted = self.fit(sample.image)
        answer = self.logits(fitted.image[None].to(self.device), list(supports.values()))
        ids = fit_mask(to_ids(sample.mask), self.size, self.head.any_shape)
        filled = (slice(0, fitted.height), slice(0, fitted.width))
        logits, alone = (
            each[0][(slice(None), *filled)].float().cpu() for each in (answer.logits, answer.alone)
        )
        return FittedAnswer(logits, alone, ids[filled])

    def logits(self, images: Tensor, classes: list[Sequence[Any]]) -> Answer:
        """Compute the logits of fitted images of one shape.

        Args:
            images: (batch, 3, height, width), RGB in 0 to 255, filled up.
            classes: features of the supports of each class.
        """
        head, size = self.head, (images.shape[-2], images.shape[-1])
        if not isinstance(head, ComparingHead):
            encoded, _ = head.encode(images, [])
            queries = [type(encoded)(*(t[i : i + 1] for t in encoded)) for i in range(len(images))]
            repeated = [query for query in queries for _ in classes]
            both = head.decode(repeated, classes * len(queries), size)
            difference = both[:, 1] - both[:, 0]
            difference = difference.reshape(len(queries), len(classes), *size)
            return Answer(queries, difference, difference)
        stages = head.backbone(images)
        queries = [head.query([stage[i : i + 1] for stage in stages]) for i in range(len(images))]
        maps = torch.stack([
            torch.cat([head.compare(query, [*shots, *self.negatives]) for shots in classes])
            for query in queries
        ])  # fmt: skip
        difference = guided_filter(enlarged(maps, head.lattice, size), images / 255)
        alone = head.scale() * difference
        if self.decoder is None:
            return Answer(queries, alone, alone)
        logits = self.decoder.logits(self.decoder(stages, maps), difference, self.share)
        return Answer(queries, logits, alone)


# The highest logits of an image tell whether a class is there: this share of its pixels.
HIGHEST = 0.005


def presence_score(logits: Tensor) -> float:
    """Score whether a class is in an image, or in a part of it: the mean of the highest logits."""
    values = logits.flatten()
    count = max(1, round(HIGHEST * len(values)))
    return float(values.topk(count).values.mean())


# Directions of a class over all its supports, inside and outside each; the most for all classes
# together, so that a task file stays below a megabyte; the fewest of one support; and those of all
# images without a class.
DIRECTIONS, TOGETHER, FEWEST, NEGATIVE_DIRECTIONS = 192, 384, 4, 96


def thinned(
    head: Head, per_support: Sequence[Mapping[int, Any]], classes: int
) -> list[dict[int, Any]]:
    """Sum up features by fewer directions where there are many supports and classes.

    A task file stays small, and a query fast, whatever their number.

    Args:
        head: the model.
        per_support: what `Predictor.encode_supports` gave.
        classes: number of classes.
    """
    if not isinstance(head, ComparingHead):
        return [dict(features) for features in per_support]
    showing = max(1, sum(bool(features) for features in per_support))
    count = max(FEWEST, min(DIRECTIONS, TOGETHER // classes) // showing)
    return [
        {c: rounded(head.thin(each, count)) for c, each in features.items()}
        for features in per_support
    ]


def rounded(features: Any) -> Any:
    """Give features rounded as a task file keeps them: read again, they answer alike."""
    return type(features)(*(tensor.half().float() for tensor in features))
