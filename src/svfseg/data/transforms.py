"""Transform image and mask together: the published test path and training augmentation."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as T

from svfseg.data.images import Array

IGNORE = 255
# Borders in training are the colour that normalisation maps to zero (ImageNet's mean).
FILL = (0.485 * 255, 0.456 * 255, 0.406 * 255)
CROP_TRIES = 30
CROP_KEEPS = 0.85


def to_tensor(image: Array) -> Tensor:
    """Turn (height, width, 3) uint8 into a tensor (3, height, width), float32 in 0 to 255."""
    return torch.from_numpy(image.transpose(2, 0, 1).copy()).float()


def class_mask(mask: Array | Tensor, class_id: int) -> Tensor:
    """Turn (height, width) ids into uint8: 1 for the class, 255 ignored, 0 for all else."""
    ids = mask if isinstance(mask, Tensor) else to_ids(mask)
    return torch.where(ids == class_id, 1, torch.where(ids == IGNORE, IGNORE, 0)).to(torch.uint8)


def numbered(mask: Tensor, classes: Sequence[int]) -> Tensor:
    """Number the ids of a mask 1 to n in the order of ``classes``, 255 ignored, 0 all else."""
    table = torch.zeros(256, dtype=torch.uint8)
    table[IGNORE] = IGNORE
    for number, class_id in enumerate(classes, start=1):
        table[class_id] = number
    return table[mask.long()]


def to_ids(mask: Array) -> Tensor:
    """Copy a (height, width) uint8 array to a tensor."""
    return torch.from_numpy(np.array(mask))


def resize_pair(image: Tensor, mask: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Resize an image bilinearly and its mask to the nearest, neither smoothed, as OpenCV does."""
    return resize_image(image, size), resize_mask(mask, size)


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (3, height, width) bilinearly, without antialiasing."""
    return F.interpolate(image[None], size, mode="bilinear", align_corners=False)[0]


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (height, width) to the nearest value."""
    return F.interpolate(mask[None, None], size, mode="nearest")[0, 0]


def fitted_size(height: int, width: int, size: int) -> tuple[int, int]:
    """Scale a size as published: longer side to ``size``, both floored to a multiple of 8."""
    ratio = size / max(height, width)
    new = (
        (size, int(width * ratio)) if height >= width else (int(height * ratio), size)
    )  # fmt: skip
    return max(8, new[0] // 8 * 8), max(8, new[1] // 8 * 8)


def fit_image(image: Tensor, size: int) -> Tensor:
    """Resize by `fitted_size` and put top-left on a black square of ``size``."""
    resized = resize_image(image, fitted_size(image.shape[-2], image.shape[-1], size))
    return F.pad(resized, (0, size - resized.shape[-1], 0, size - resized.shape[-2]))


def fit_mask(mask: Tensor, size: int) -> Tensor:
    """Resize a mask as `fit_image` does; outside of it the square is 255."""
    resized = resize_mask(mask, fitted_size(mask.shape[-2], mask.shape[-1], size))
    padding = (0, size - resized.shape[-1], 0, size - resized.shape[-2])
    return F.pad(resized, padding, value=IGNORE)


def logits_at_original(logits: Tensor, height: int, width: int) -> Tensor:
    """Undo `fit_image`: logits of the square, at an image's own size.

    The square stands for a square of the image's longer side (the published ``ori_resize``).

    Args:
        logits: (channels, size, size).
        height: height of the image.
        width: width of the image.

    Returns:
        (channels, height, width).
    """
    side = max(height, width)
    enlarged = F.interpolate(logits[None], (side, side), mode="bilinear", align_corners=True)[0]
    return enlarged[:, :height, :width]


def augment(
    image: Tensor,
    mask: Tensor,
    size: int,
    scale: tuple[float, float],
    fit: bool,
    rng: np.random.Generator,
    inside: int | None = 1,
) -> tuple[Tensor, Tensor]:
    """Augment an image and its mask for training, in the published order.

    Random scale, rotation by up to 10 degrees (half of the time), 5x5 Gaussian blur (half),
    horizontal flip (half), random crop that keeps about 85 % of the class if 30 tries allow it.

    Args:
        image: (3, height, width), 0 to 255.
        mask: (height, width) of ids and 255.
        size: side of the square crop.
        scale: range of the random scale.
        fit: scale the longer side to ``size`` before the random scale.
        rng: source of all choices.
        inside: the id that the crop keeps; None crops anywhere.

    Returns:
        (3, size, size) and (size, size).
    """
    height, width = mask.shape
    factor = float(rng.uniform(*scale)) * (size / max(height, width) if fit else 1.0)
    scaled = (max(1, round(height * factor)), max(1, round(width * factor)))
    image, mask = resize_pair(image, mask, scaled)
    if rng.random() < 0.5:
        angle = float(rng.uniform(-10, 10))
        image = T.rotate(image, angle, InterpolationMode.BILINEAR, fill=list(FILL))
        mask = T.rotate(mask[None], angle, InterpolationMode.NEAREST, fill=[IGNORE])[0]
    if rng.random() < 0.5:
        image = T.gaussian_blur(image, [5, 5], [1.1, 1.1])
    if rng.random() < 0.5:
        image, mask = image.flip(-1), mask.flip(-1)
    return crop(*pad(image, mask, size), size, rng, inside)


def pad(image: Tensor, mask: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Pad to at least a square of ``size``, evenly: mean colour and 255."""
    rows, columns = (max(0, size - side) for side in mask.shape)
    if not rows and not columns:
        return image, mask
    sides = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    fill = torch.tensor(FILL).view(3, 1, 1)
    return F.pad(image - fill, sides) + fill, F.pad(mask, sides, value=IGNORE)


def crop(
    image: Tensor, mask: Tensor, size: int, rng: np.random.Generator, inside: int | None = 1
) -> tuple[Tensor, Tensor]:
    """Crop a random square of ``size`` with enough of the class, or the best of the tries."""
    height, width = mask.shape
    marked = mask == (-1 if inside is None else inside)
    total = int(marked.sum())
    best, box = -1, (0, 0)
    for _ in range(CROP_TRIES):
        top, left = (int(rng.integers(0, side - size + 1)) for side in (height, width))
        marked_pixels = int(marked[top : top + size, left : left + size].sum())
        if marked_pixels > best:
            best, box = marked_pixels, (top, left)
        if best >= math.floor(CROP_KEEPS * total):
            break
    top, left = box
    window = (slice(top, top + size), slice(left, left + size))
    return image[:, *window].contiguous(), mask[window].contiguous()
