"""What a fitted segmenter computes: views of supports, and maps of images for all classes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


class Shown(NamedTuple):
    """The view of an image that a head without views of its own has: the image, and a mask."""

    image: Tensor
    mask: Tensor


class Plain(nn.Module):
    """Views for a head that only has ``forward``: nothing is shared, all is computed each time."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @property
    def backbone(self) -> nn.Module:
        """The head's."""
        return cast(nn.Module, self.model.backbone)

    def views(
        self, image: Tensor, masks: Sequence[Tensor], query: bool = True
    ) -> tuple[Shown | None, list[Shown]]:
        """The image itself, once more for each mask."""
        empty = torch.zeros(image.shape[-2:], dtype=torch.uint8, device=image.device)
        return Shown(image, empty) if query else None, [Shown(image, mask) for mask in masks]

    def outline(
        self, queries: Sequence[Shown], supports: Sequence[Sequence[Shown]], size: tuple[int, int]
    ) -> Tensor:
        """Logits of the head, one query at a time."""
        return torch.cat([
            self.model(
                query.image,
                torch.cat([shown.image for shown in shots])[None],
                torch.stack([shown.mask for shown in shots])[None],
            )
            for query, shots in zip(queries, supports, strict=True)
        ])  # fmt: skip


def with_views(model: nn.Module) -> Any:
    """The head itself where it has views, else one that makes them."""
    return model if hasattr(model, "views") else Plain(model)


class Seen(NamedTuple):
    """What the model says of an image for each class.

    Attributes:
        maps: (classes, height, width), probability, float32 on the CPU.
        evidence: one value a class: see `svfseg.segmenter.inference.evidence`.
    """

    maps: Tensor
    evidence: tuple[float, ...]


Views = Mapping[int, Sequence[Any]]  # class id -> its supports' views


def by_class(shown: Iterable[Mapping[int, Any]], ids: Iterable[int]) -> dict[int, list[Any]]:
    """Class id -> the views of all supports that show it, from `Outliner.views`."""
    supports = list(shown)
    return {c: [views[c] for views in supports if c in views] for c in ids}


@dataclass(frozen=True)
class Outliner:
    """A model, and how images are shown to it.

    Attributes:
        model: a head in eval mode, with views (`with_views`).
        size: side of the square that images or tiles are fitted to.
        device: where to compute.
        batch: images or tiles at once.
    """

    model: Any
    size: int
    device: str = "cpu"
    batch: int = 4

    @torch.inference_mode()
    def views(self, samples: Sequence[Sample], ids: Iterable[int]) -> list[dict[int, Any]]:
        """For each support its views by class id, without the classes that vanish in it."""
        classes = list(ids)
        found: list[dict[int, Any]] = []
        for sample in samples:
            masks = {c: fit_mask(class_mask(sample.mask, c), self.size) for c in classes}
            masks = {c: mask for c, mask in masks.items() if (mask == 1).any()}
            if not masks:
                found.append({})
                continue
            image = fit_image(to_tensor(sample.image), self.size)[None].to(self.device)
            on_device = [mask.to(self.device) for mask in masks.values()]
            shown = self.model.views(image, on_device, query=False)[1]
            # rounded as a task file keeps them, so that they give the same masks when read again
            rounded = [type(view)(*(t.half().float() for t in view)) for view in shown]
            found.append(dict(zip(masks, rounded, strict=True)))
        return found

    @torch.inference_mode()
    def look(self, images: Sequence[Array], views: Views) -> list[Seen]:
        """Outline all classes in images, each image's backbone once.

        Args:
            images: (height, width, 3) each.
            views: of the classes, in the order of the maps.
        """
        return [
            seen
            for at in range(0, len(images), self.batch)
            for seen in self._look(images[at : at + self.batch], list(views.values()))
        ]

    def _look(self, images: Sequence[Array], classes: list[Sequence[Any]]) -> list[Seen]:
        batch = torch.stack([fit_image(to_tensor(image), self.size) for image in images])
        seen, _ = self.model.views(batch.to(self.device), [])
        queries = [type(seen)(*(t[i : i + 1] for t in seen)) for i in range(len(images))]
        asked = [query for query in queries for _ in classes]
        logits = self.model.outline(asked, classes * len(queries), batch.shape[-2:]).float().cpu()
        probabilities = logits.softmax(dim=1)[:, 1]
        found = []
        for i, image in enumerate(images):
            part = slice(i * len(classes), (i + 1) * len(classes))
            height, width = fitted_size(image.shape[0], image.shape[1], self.size)
            signs = tuple(
                _evidence(queries[i], shots, square, height, width)
                for shots, square in zip(classes, probabilities[part], strict=True)
            )
            own = [logits_at_original(each, *image.shape[:2]) for each in logits[part]]
            found.append(Seen(torch.stack([each.softmax(dim=0)[1] for each in own]), signs))
        return found

    @torch.inference_mode()
    def view_type(self) -> Any:
        """The named tuple that the model makes of a support."""
        image = torch.zeros(1, 3, 64, 64, device=self.device)
        mask = torch.ones(64, 64, dtype=torch.uint8, device=self.device)
        return type(self.model.views(image, [mask], query=False)[1][0])


def _evidence(query: Any, shots: Sequence[Any], square: Tensor, height: int, width: int) -> float:
    """Of a class in a query that fills (height, width) of the square.

    A head without deep features has the mean of its highest probabilities.
    """
    found = square[:height, :width]
    if not hasattr(query, "deep"):
        return float(found.flatten().topk(max(1, found.numel() // 100)).values.mean())
    deep = query.deep[0].float().cpu()
    keys = torch.cat([shot.keys for shot in shots], dim=1).float().cpu()
    rows = max(1, round(deep.shape[1] * height / square.shape[0]))
    columns = max(1, round(deep.shape[2] * width / square.shape[1]))
    return evidence(deep[:, :rows, :columns], keys, found)


def evidence(deep: Tensor, keys: Tensor, found: Tensor) -> float:
    """How much what was outlined, and the image at its best, look like the supports.

    The prior mask is stretched to [0, 1] in each image, so a head outlines something in any image.
    What tells whether the class is there is the similarity before that: the mean of its
    highest 2 % of positions, and of all positions weighed by the probability of the class.

    Args:
        deep: (channels, height, width), deep features of the query.
        keys: (channels, positions), those inside the supports' masks.
        found: (rows, columns), probability of the class.

    Returns:
        A cosine in [-1, 1].
    """
    query = F.normalize(deep.flatten(1), dim=0)
    inside = F.normalize(keys[:, keys.norm(dim=0) > 0], dim=0)
    if inside.shape[1] == 0:
        return 0.0
    nearest = (inside.T @ query).amax(dim=0)
    share = F.interpolate(found[None, None], deep.shape[-2:], mode="area").flatten()
    weighed = (nearest * share).sum() / share.sum().clamp_min(1e-6)
    best = nearest.topk(max(1, len(nearest) // 50)).values.mean()
    return float((weighed + best) / 2)
