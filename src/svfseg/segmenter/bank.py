"""Views of the supports with their features, computed once, and their comparison maps."""

import math
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from svfseg.data.transforms import class_mask, to_ids
from svfseg.models import Head
from svfseg.models.dense import nearness
from svfseg.models.geometry import Lattice
from svfseg.models.head import comparing
from svfseg.segmenter.adaptation import Support
from svfseg.segmenter.resizing import Fitted, fit_image, fit_mask
from svfseg.segmenter.views import VIEW, View, random_view

# A support that is compared with itself leaves out positions nearer than this share of its sides.
NEAR = 0.1
_BATCH = 16


class Whole:
    """A support as a whole: what views of it and of others are compared with.

    Args:
        head: the model.
        support: the support.
        size: longer side to which it is fitted.
        device: device to compute on.

    Attributes:
        fitted: the image as the network sees it.
        mask: ids of the fitted image, (height, width), the filling 255.
        stages: features of the five stages, in half precision.
    """

    def __init__(self, head: Head, support: Support, size: int, device: str) -> None:
        self.fitted: Fitted = fit_image(support.sample.image, size, True)
        self.mask = fit_mask(to_ids(support.sample.mask), size, True)
        with torch.inference_mode():
            stages = head.backbone(self.fitted.image[None].to(device))
        self.stages: list[Tensor] = [stage.half() for stage in stages]


class Bank:
    """Random views of supports.

    Args:
        head: the model, a `ComparingHead`, in eval mode.
        supports: the supports.
        features: features of each support by class id.
        negatives: group of a support that shows no class -> its features.
        class_ids: the classes.
        size: longer side at which whole images are seen.
        count: number of views; each support has two at least.
        seed: seed of all choices.
        device: device to compute on.
        until: time of `time.monotonic` from which no further views are computed.

    Attributes:
        views: the views.
        stages: features of the five stages, (views, channels, height, width), half precision.
        targets: (views, `VIEW`, `VIEW`) of ids and 255.
    """

    def __init__(
        self, head: Head, supports: Sequence[Support], features: Sequence[Mapping[int, Any]],
        negatives: Mapping[int, Sequence[Any]], class_ids: Sequence[int],
        size: int, count: int, seed: int, device: str, until: float = math.inf,
    ) -> None:  # fmt: skip
        self.head, self.comparing = head, comparing(head)
        self.supports, self.features, self.device = supports, features, device
        self.negatives = negatives
        self.class_ids = list(class_ids)
        self.wholes = [Whole(head, support, size, device) for support in supports]
        self.views: list[View] = []
        for number in range(max(count, 2 * len(supports))):
            source = number % len(supports)
            sample_ = supports[source].sample
            shown = [c for c in class_ids if supports[source].shows(c)]
            rng = np.random.default_rng((seed, 11, source, number // len(supports)))
            self.views.append(random_view(sample_, source, size, shown, rng))
        self.stages = self._encode(until)
        self.views = self.views[: len(self.stages[0])]
        self.targets = torch.stack([view.mask for view in self.views]).to(device)

    @torch.inference_mode()
    def _encode(self, until: float) -> list[Tensor]:
        parts: list[list[Tensor]] = []
        for at in range(0, len(self.views), _BATCH):
            if at >= 2 * len(self.supports) and time.monotonic() > until:
                break
            images = torch.stack([view.image for view in self.views[at : at + _BATCH]])
            stages = self.head.backbone(images.to(self.device))
            parts.append([stage.half() for stage in stages])
        return [torch.cat(stage) for stage in zip(*parts, strict=True)]

    def of(self, groups: Collection[int]) -> list[int]:
        """List the views of supports of some groups."""
        return [i for i, v in enumerate(self.views) if self.supports[v.source].group in groups]

    @torch.inference_mode()
    def maps(self, chosen: Sequence[int], groups: Collection[int]) -> Tensor:
        """Compare views with the supports of some groups, each with others than its own.

        Args:
            chosen: numbers of the views.
            groups: groups of the supports.

        Returns:
            (views, 3 * classes, rows, columns).
        """
        rows = []
        for number in chosen:
            view = self.views[number]
            stages = [stage[number : number + 1].float() for stage in self.stages]
            rows.append(torch.cat([
                self._compare(stages, view, class_id, groups) for class_id in self.class_ids
            ]))  # fmt: skip
        return torch.stack(rows)

    def _compare(
        self, stages: Sequence[Tensor], view: View, class_id: int, groups: Collection[int]
    ) -> Tensor:
        own = self.supports[view.source].group
        others = [g for g in groups if g != own]
        is_only = own in groups and not self.shows(class_id, others)
        if is_only and class_id in self.features[view.source]:
            return self._with_itself(stages, view, class_id, others)
        return self.comparing.compare(self.comparing.query(stages), self.shots(class_id, others))

    def shows(self, class_id: int, groups: Collection[int]) -> bool:
        """Whether a support of some groups shows a class."""
        return any(
            support.group in groups and class_id in features
            for support, features in zip(self.supports, self.features, strict=True)
        )

    def shots(self, class_id: int, groups: Collection[int]) -> list[Any]:
        """List the features of supports of some groups: of a class, and of those without any."""
        shown = [
            features[class_id]
            for support, features in zip(self.supports, self.features, strict=True)
            if support.group in groups and class_id in features
        ]
        return shown + [each for g in groups for each in self.negatives.get(g, ())]

    def _with_itself(
        self, stages: Sequence[Tensor], view: View, class_id: int, others: Sequence[int]
    ) -> Tensor:
        """Compare a view with its own support, positions near by left out, and with negatives."""
        whole = self.wholes[view.source]
        mask = class_mask(whole.mask, class_id).to(self.device)
        keys, inside, outside = self.comparing.alone([s.float() for s in whole.stages], mask)
        described = self.comparing.query(stages).deep[0]
        height, width = whole.fitted.height, whole.fitted.width
        lattice = self.comparing.lattice
        there = _places(keys.shape[-2:], lattice, (0, 0, 1, 1), (height, width), self.device)
        here = _places(described.shape[-2:], lattice, view.box, (VIEW, VIEW), self.device)
        near = ((there[:, None] - here[None]).abs() < NEAR).all(dim=2)
        flat = described.flatten(1)
        more = [self.comparing.surroundings(s) for g in others for s in self.negatives.get(g, ())]
        sides = []
        for shown, beside in ((inside.flatten(), []), (outside.flatten(), more)):
            counted = ~near[shown]
            if not len(counted):
                sides.append(flat.new_zeros(flat.shape[1]))
                continue
            counted = counted | ~counted.any(dim=0)  # where all are near, all count
            directions = torch.cat([keys.flatten(1)[:, shown], *beside], dim=1)
            always = counted.new_ones(directions.shape[1] - len(counted), counted.shape[1])
            sides.append(nearness(flat, directions, torch.cat([counted, always])))
        maps = torch.stack([sides[0], sides[1], sides[0] - sides[1]])
        return maps.reshape(3, *described.shape[-2:])


def _places(
    size: Sequence[int], lattice: Lattice, box: Sequence[float], sides: Sequence[int], device: str
) -> Tensor:
    """(rows * columns, 2): where positions lie in a support, as shares of its sides."""
    top, left, bottom, right = box
    rows = (lattice.top + lattice.stride * torch.arange(size[0], device=device)) / sides[0]
    columns = (lattice.left + lattice.stride * torch.arange(size[1], device=device)) / sides[1]
    grid = torch.meshgrid(
        top + rows * (bottom - top), left + columns * (right - left), indexing="ij"
    )
    return torch.stack(grid, dim=-1).flatten(0, 1)
