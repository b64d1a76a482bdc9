"""Bring the edges of a coarse map onto those of the image."""

import torch
import torch.nn.functional as F
from torch import Tensor

RADIUS, EPSILON, COARSER = 8, 1e-3, 4


def guided_filter(
    maps: Tensor,
    image: Tensor,
    radius: int = RADIUS,
    epsilon: float = EPSILON,
    coarser: int = COARSER,
) -> Tensor:
    """Make maps change where the image does: the guided filter (He, Sun and Tang, TPAMI 2013).

    In each window a map becomes a linear function of the three colours, and each pixel the mean
    of what its windows say.

    Args:
        maps: (batch, channels, height, width).
        image: (batch, 3, height, width), RGB in 0 to 1.
        radius: half the side of a window, in pixels.
        epsilon: variance of a colour below which it is not followed.
        coarser: the windows are computed on pixels of this side, and what they say is enlarged
            (He and Sun, 2015): a sixteenth of the work, and nearly the same. Both sides must be
            multiples of it.

    Returns:
        (batch, channels, height, width).
    """
    fine = image
    if coarser > 1:
        image, maps = F.avg_pool2d(image, coarser), F.avg_pool2d(maps, coarser)
        radius = max(1, radius // coarser)
    mean_image, mean_maps = _mean(image, radius), _mean(maps, radius)
    products = image[:, :, None] * image[:, None]
    covariance = _mean(products.flatten(1, 2), radius).reshape(products.shape)
    covariance = covariance - mean_image[:, :, None] * mean_image[:, None]
    both = image[:, :, None] * maps[:, None]
    mixed = _mean(both.flatten(1, 2), radius).reshape(both.shape)
    mixed = mixed - mean_image[:, :, None] * mean_maps[:, None]
    inverse = _inverse(covariance + epsilon * torch.eye(3, device=image.device)[..., None, None])
    slope = (inverse[:, :, :, None] * mixed[:, None]).sum(dim=2)
    shift = _mean(mean_maps - (slope * mean_image[:, :, None]).sum(dim=1), radius)
    slope = _mean(slope.flatten(1, 2), radius)
    if coarser > 1:
        size = fine.shape[-2:]
        slope = F.interpolate(slope, size, mode="bilinear", align_corners=False)
        shift = F.interpolate(shift, size, mode="bilinear", align_corners=False)
    slope = slope.reshape(len(fine), 3, -1, *fine.shape[-2:])
    filtered: Tensor = (slope * fine[:, :, None]).sum(dim=1) + shift
    return filtered


def _mean(x: Tensor, radius: int) -> Tensor:
    """Mean over the window around each pixel, of the pixels that are in the image."""
    for shape in ((2 * radius + 1, 1), (1, 2 * radius + 1)):
        padding = (shape[0] // 2, shape[1] // 2)
        x = F.avg_pool2d(x, shape, stride=1, padding=padding, count_include_pad=False)
    return x


def _inverse(m: Tensor) -> Tensor:
    """Inverse of symmetric 3x3 matrices (batch, 3, 3, height, width), by their adjugate."""
    a, b, c, d, e, f = m[:, 0, 0], m[:, 0, 1], m[:, 0, 2], m[:, 1, 1], m[:, 1, 2], m[:, 2, 2]
    minors = (
        d * f - e * e,
        c * e - b * f,
        b * e - c * d,
        a * f - c * c,
        b * c - a * e,
        a * d - b * b,
    )
    determinant = a * minors[0] + b * minors[1] + c * minors[2]
    aa, ab, ac, dd, de, ff = (minor / determinant for minor in minors)
    rows = [torch.stack(row, dim=1) for row in ((aa, ab, ac), (ab, dd, de), (ac, de, ff))]
    return torch.stack(rows, dim=1)
