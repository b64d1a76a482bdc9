"""Fit images of any size and shape to a network, and bring its maps back."""

from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from svfseg.data.images import Array
from svfseg.data.transforms import IGNORE, to_tensor

# Sides are filled up to a multiple of the coarsest stride, so that every stage's positions lie on
# one lattice.
MULTIPLE = 32


class Fitted(NamedTuple):
    """An image as a network sees it.

    Attributes:
        image: (3, height, width), RGB in 0 to 255; the image, and filling to its right and below.
        height: rows that the image fills.
        width: columns that the image fills.
    """

    image: Tensor
    height: int
    width: int


def fitted_sides(height: int, width: int, size: int) -> tuple[int, int]:
    """Scale sides so that the longer one is ``size``."""
    ratio = size / max(height, width)
    return max(1, round(height * ratio)), max(1, round(width * ratio))


def filled_sides(height: int, width: int, size: int, any_shape: bool) -> tuple[int, int]:
    """Give the sides to which an image of these fitted sides is filled up."""
    if not any_shape:
        return size, size
    return -(-height // MULTIPLE) * MULTIPLE, -(-width // MULTIPLE) * MULTIPLE


def fit_image(image: Array, size: int, any_shape: bool) -> Fitted:
    """Resize an image, smoothed where it shrinks, and fill it up.

    By Pillow, so that a program without torch can do the same to the last bit.

    Args:
        image: (height, width, 3) uint8, RGB.
        size: longer side that it gets.
        any_shape: fill up to multiples of `MULTIPLE` with the pixels of the border; else to a
            black square, as published networks were trained.
    """
    height, width = fitted_sides(image.shape[0], image.shape[1], size)
    pixels = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    resized = to_tensor(np.asarray(pixels))
    rows, columns = filled_sides(height, width, size, any_shape)
    padding = (0, columns - width, 0, rows - height)
    filled = F.pad(resized[None], padding, "replicate" if any_shape else "constant")[0]
    return Fitted(filled, height, width)


def fit_mask(mask: Tensor, size: int, any_shape: bool) -> Tensor:
    """Resize a mask (height, width) of ids as `fit_image` does its image; the filling is 255."""
    height, width = fitted_sides(mask.shape[-2], mask.shape[-1], size)
    rows, columns = filled_sides(height, width, size, any_shape)
    resized = resize_ids(mask, (height, width))
    return F.pad(resized, (0, columns - width, 0, rows - height), value=IGNORE)


def resize_ids(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (height, width) of ids to the value at the middle of each pixel, as images are."""
    return F.interpolate(mask[None, None], size, mode="nearest-exact")[0, 0]


def at_original(maps: Tensor, fitted: Fitted, height: int, width: int) -> Tensor:
    """Give maps of a fitted image at the image's own size.

    Args:
        maps: (channels, rows, columns) of the filled image.
        fitted: the image as the network saw it.
        height: height of the image itself.
        width: width of the image itself.

    Returns:
        (channels, height, width).
    """
    own = maps[None, :, : fitted.height, : fitted.width]
    if own.shape[-2:] == (height, width):
        return own[0]
    return F.interpolate(own, (height, width), mode="bilinear", align_corners=False)[0]
