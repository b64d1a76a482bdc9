"""Cut an image into overlapping squares at its own resolution, and blend their maps."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from svfseg.data.images import Array
from svfseg.data.index import Sample
from svfseg.errors import InputError


class Window(NamedTuple):
    """Top left corner and size, in pixels; inside the image."""

    top: int
    left: int
    height: int
    width: int


def windows(height: int, width: int, side: int, overlap: float = 0.25) -> list[Window]:
    """List squares of a side that cover an image evenly, each overlapping its neighbours.

    Args:
        height: height of the image.
        width: width of the image.
        side: side of the squares; a shorter image gives shorter windows.
        overlap: least share of a window that its neighbour has too, 0 to below 1.

    Raises:
        InputError: a side below 1, or an overlap out of range.
    """
    if side < 1 or not 0 <= overlap < 1:
        raise InputError(f"tile is {side}, overlap {overlap}: expected 1 or more, and 0 to below 1")
    return [
        Window(top, left, min(side, height), min(side, width))
        for top in _starts(height, side, overlap)
        for left in _starts(width, side, overlap)
    ]


def count_windows(height: int, width: int, side: int, overlap: float = 0.25) -> int:
    """Count the squares of `windows`, without listing them."""
    return _number(height, side, overlap) * _number(width, side, overlap)


def _number(extent: int, side: int, overlap: float) -> int:
    if extent <= side:
        return 1
    return 1 + -(-(extent - side) // max(1, int(side * (1 - overlap))))


def _starts(extent: int, side: int, overlap: float) -> list[int]:
    count = _number(extent, side, overlap)
    if count == 1:
        return [0]
    return [round(i * (extent - side) / (count - 1)) for i in range(count)]


def cut(image: Array, window: Window) -> Array:
    """Cut the part of an image or mask in a window."""
    rows = slice(window.top, window.top + window.height)
    return image[rows, window.left : window.left + window.width]


def marked_windows(sample: Sample, side: int, overlap: float, most: int = 4) -> list[Sample]:
    """Choose the windows of a support with most of its classes; without any, evenly spread.

    Args:
        sample: image and mask of ids.
        side: side of the windows.
        overlap: see `windows`.
        most: number of windows, for each class.
    """
    places = windows(sample.mask.shape[0], sample.mask.shape[1], side, overlap)
    ids = sorted(set(np.unique(sample.mask).tolist()) - {0, 255})
    chosen: dict[Window, None] = {}
    for class_id in ids:
        areas = {w: int((cut(sample.mask, w) == class_id).sum()) for w in places}
        best = sorted((w for w in places if areas[w]), key=lambda w: -areas[w])[:most]
        chosen |= dict.fromkeys(best)
    if not ids:
        chosen = dict.fromkeys(places[:: -(-len(places) // most)])
    return [Sample(cut(sample.image, w), cut(sample.mask, w)) for w in chosen]


def blend(
    parts: Iterable[Tensor], places: Sequence[Window], height: int, width: int, channels: int
) -> Tensor:
    """Blend maps of windows to one: a mean that weighs the middle of a window more.

    Args:
        parts: (channels, window height, window width) each.
        places: their windows, which cover the image.
        height: height of the image.
        width: width of the image.
        channels: number of channels of the maps.

    Returns:
        (channels, height, width).
    """
    total = torch.zeros(channels, height, width)
    weight = torch.zeros(height, width)
    for part, window in zip(parts, places, strict=True):
        ramp = [1 - (2 * (torch.arange(n) + 0.5) / n - 1).abs() + 1e-3 for n in part.shape[-2:]]
        share = torch.minimum(ramp[0][:, None], ramp[1][None, :])
        rows = slice(window.top, window.top + window.height)
        columns = slice(window.left, window.left + window.width)
        total[:, rows, columns] += part * share
        weight[rows, columns] += share
    return total.div_(weight)
