"""Places of the positions of a feature map in the image, and maps moved between grids.

Lengths are in pixels of the network's input, from its upper left corner: the centre of the first
pixel lies at 0.5.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# The picture, the square and the steps by which lattices are measured. The side is a multiple of
# every stride, and large enough that the square's response fades before the border.
SIDE, SQUARE, STEP, SPAN = 256, 8, 4, 32


class Lattice(NamedTuple):
    """Where the positions of a feature map lie.

    Attributes:
        stride: distance of neighbours.
        top: where the centre of the first row lies.
        left: where the centre of the first column lies.
    """

    stride: float
    top: float
    left: float


PIXELS = Lattice(1.0, 0.5, 0.5)


@torch.no_grad()
def measure_lattices(
    stages: Callable[[Tensor], Sequence[Tensor]], device: str | torch.device = "cpu"
) -> tuple[Lattice, ...]:
    """Measure where the positions of each stage lie: by a small square moved over a grey picture.

    A position answers most where the square covers what it sees. Strides and padding alone do not
    tell: what a network learned moves the centre by half a stride (MobileNetV2) or back by a third
    of one (EfficientNet-Lite0, whose padding is uneven).

    Args:
        stages: gives feature maps (batch, channels, height, width) of an image (batch, 3, `SIDE`,
            `SIDE`), RGB in 0 to 255.
        device: where the network is.

    Returns:
        One lattice per stage, its place rounded to a quarter of a pixel.
    """
    grey = torch.full((1, 3, SIDE, SIDE), 127.0, device=device)
    still = stages(grey)
    moved: list[list[tuple[float, float]]] = [[] for _ in still]
    strides = [SIDE / each.shape[-1] for each in still]
    for at in range(SIDE // 2 - SPAN // 2, SIDE // 2 + SPAN // 2, STEP):
        image = grey.clone()
        image[..., at : at + SQUARE, at : at + SQUARE] = 255
        center = at + SQUARE / 2
        for places, before, after, stride in zip(moved, still, stages(image), strides, strict=True):
            response = (after - before).double().square().sum(dim=1)[0]
            rows, columns = (
                float((response.sum(dim=other) * torch.arange(extent, device=device)).sum())
                / float(response.sum().clamp_min(1e-30))
                for other, extent in ((1, response.shape[0]), (0, response.shape[1]))
            )
            places.append((center - stride * rows, center - stride * columns))
    return tuple(
        Lattice(stride, *(round(4 * sum(axis) / len(axis)) / 4 for axis in zip(*seen, strict=True)))
        for stride, seen in zip(strides, moved, strict=True)
    )


def sample(maps: Tensor, source: Lattice, target: Lattice, size: Sequence[int | Tensor]) -> Tensor:
    """Read maps on a lattice at the positions of another, bilinearly; beyond the border as on it.

    Args:
        maps: (..., height, width), on the source's positions.
        source: where they lie.
        target: where the result's positions lie.
        size: rows and columns of the result.

    Returns:
        (..., *size).
    """
    rows, columns = (
        _shares(count, extent, (to - origin) / source.stride, target.stride / source.stride, maps)
        for count, extent, to, origin in (
            (size[0], maps.shape[-2], target.top, source.top),
            (size[1], maps.shape[-1], target.left, source.left),
        )
    )
    return rows @ maps @ columns.T


def _shares(count: int | Tensor, extent: int, start: float, step: float, like: Tensor) -> Tensor:
    """(count, extent): row i holds what each position adds at place start + i * step."""
    place = start + step * torch.arange(count, device=like.device)  # type: ignore[arg-type]
    place = torch.minimum(place.clamp_min(0.0), torch.as_tensor(extent - 1.0, device=like.device))
    apart = (place[:, None] - torch.arange(extent, device=like.device)).abs()
    return (1 - apart).clamp_min(0).to(like.dtype)


def pool(mask: Tensor, lattice: Lattice, size: Sequence[int | Tensor]) -> Tensor:
    """Give the share of a mask in the square of one stride around each position.

    Args:
        mask: (..., height, width), in pixels.
        lattice: where the positions lie.
        size: rows and columns of positions.

    Returns:
        (..., *size).
    """
    rows, columns = (
        _cells(count, extent, origin, lattice.stride, mask)
        for count, extent, origin in (
            (size[0], mask.shape[-2], lattice.top),
            (size[1], mask.shape[-1], lattice.left),
        )
    )
    return rows @ mask @ columns.T


def _cells(count: int | Tensor, extent: int, origin: float, stride: float, like: Tensor) -> Tensor:
    """(count, extent): row i holds the share of each pixel in the i-th position's square."""
    center = origin + stride * torch.arange(count, device=like.device)  # type: ignore[arg-type]
    center = torch.minimum(center, torch.as_tensor(extent - 0.5, device=like.device))
    low, high = (center - stride / 2)[:, None], (center + stride / 2)[:, None]
    pixel = torch.arange(extent, device=like.device)
    inside = (torch.minimum(high, pixel + 1) - torch.maximum(low, pixel)).clamp_min(0)
    return (inside / inside.sum(dim=1, keepdim=True)).to(like.dtype)
