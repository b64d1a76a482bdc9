"""Cut random views of the supports: what a decoder learns from."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from svfseg.data.images import Array
from svfseg.data.index import Sample
from svfseg.data.transforms import FILL, IGNORE, to_ids, to_tensor
from svfseg.segmenter.resizing import resize_ids

VIEW = 224
SCALES = (0.4, 1.3)
SEEKING = 0.7
GAIN, SHIFT = 0.3, 20.0


class View(NamedTuple):
    """A part of a support, scaled, mirrored and lit otherwise.

    Attributes:
        image: (3, `VIEW`, `VIEW`), RGB in 0 to 255.
        mask: (`VIEW`, `VIEW`) of ids and 255.
        source: number of the support.
        box: top, left, bottom, right in the support, as shares of its sides; where it is mirrored,
            left is more than right.
    """

    image: Tensor
    mask: Tensor
    source: int
    box: tuple[float, float, float, float]


def random_view(
    sample: Sample, source: int, size: int, classes: Sequence[int], rng: np.random.Generator,
    scales: tuple[float, float] = SCALES, side: int = VIEW,
) -> View:  # fmt: skip
    """Cut a square at a random scale, more often than not with a class in it.

    Args:
        sample: image and mask of ids.
        source: its number.
        size: longer side at which whole images are seen; the scale is relative to it.
        classes: ids of classes that are sought.
        rng: source of all choices.
        scales: range of the scale, drawn log-uniformly.
        side: side of the square.
    """
    height, width = sample.mask.shape
    scale = size / max(height, width) * float(np.exp(rng.uniform(*np.log(scales))))
    extent = side / scale
    center = (rng.uniform(0, height), rng.uniform(0, width))
    seeks, which, place = rng.random(), rng.random(), rng.random()
    if classes and seeks < SEEKING:
        rows, columns = np.nonzero(sample.mask == classes[int(which * len(classes))])
        if len(rows):
            at = int(place * len(rows))
            center = (
                rows[at] + rng.uniform(-0.4, 0.4) * extent,
                columns[at] + rng.uniform(-0.4, 0.4) * extent,
            )
    top, left = (
        _start(middle, extent, whole) for middle, whole in zip(center, (height, width), strict=True)
    )
    box = (
        max(0, round(top)), max(0, round(left)),
        min(height, round(top + extent)), min(width, round(left + extent)),
    )  # fmt: skip
    image, mask = _cut(sample.image, sample.mask, box, scale, side)
    mirrored = rng.random() < 0.5
    if mirrored:
        image, mask = image.flip(-1), mask.flip(-1)
    image = (image * rng.uniform(1 - GAIN, 1 + GAIN) + rng.uniform(-SHIFT, SHIFT)).clamp(0, 255)
    shares = (
        box[0] / height, box[1] / width,
        (box[0] + side / scale) / height, (box[1] + side / scale) / width,
    )  # fmt: skip
    if mirrored:
        shares = (shares[0], shares[3], shares[2], shares[1])
    return View(image, mask, source, shares)


def _start(middle: float, extent: float, whole: int) -> float:
    """Where a window of an extent begins around a place; inside the image where it fits."""
    if extent >= whole:
        return 0.0
    return float(np.clip(middle - extent / 2, 0, whole - extent))


def _cut(
    image: Array, mask: Array, box: tuple[int, int, int, int], scale: float, side: int
) -> tuple[Tensor, Tensor]:
    """Cut a part, scale it, and fill it up to a square of ``side``."""
    top, left, bottom, right = box
    rows = max(1, min(side, round((bottom - top) * scale)))
    columns = max(1, min(side, round((right - left) * scale)))
    part = to_tensor(image[top:bottom, left:right])
    part = F.interpolate(
        part[None], (rows, columns), mode="bilinear", align_corners=False, antialias=True
    )[0]
    ids = resize_ids(to_ids(mask[top:bottom, left:right]), (rows, columns))
    color = torch.tensor(FILL).view(3, 1, 1)
    padding = (0, side - columns, 0, side - rows)
    return F.pad(part - color, padding) + color, F.pad(ids, padding, value=IGNORE)
