"""Operations on features and masks, as pure functions."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(x: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Resize (batch, channels, height, width) bilinearly with aligned corners.

    The corner pixels stay corner pixels, as in every published network of this family.
    """
    if x.shape[-2:] == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)


def average_into(x: Tensor, size: Sequence[int | Tensor]) -> Tensor:
    """Pool (..., height, width) adaptively to a size that need not be known before.

    The windows of `torch.nn.functional.adaptive_avg_pool2d`, as two products with the matrices of
    their shares: exporters know these for any size, and not the pooling.

    Args:
        x: (..., height, width).
        size: height and width to come.
    """
    rows, columns = (
        _windows(extent, count, x) for extent, count in zip(x.shape[-2:], size, strict=True)
    )
    return rows @ x @ columns.T


def _windows(extent: int, count: int | Tensor, like: Tensor) -> Tensor:
    """(count, extent): row i holds 1 / length inside the i-th window and 0 outside."""
    number = torch.arange(count, device=like.device)  # type: ignore[arg-type]
    low = torch.div(number * extent, count, rounding_mode="floor")
    high = torch.div((number + 1) * extent + count - 1, count, rounding_mode="floor")
    place = torch.arange(extent, device=like.device)
    inside = (place >= low[:, None]) & (place < high[:, None])
    return inside.to(like.dtype) / (high - low)[:, None]


def masked_average_pooling(features: Tensor, mask: Tensor) -> Tensor:
    """Mean feature under a soft mask: the class prototype.

    Args:
        features: (batch, channels, height, width).
        mask: (batch, 1, height, width) in [0, 1].

    Returns:
        (batch, channels, 1, 1). The sum is divided by the mask's area + 5e-4 (PFENet), so an
        empty mask gives zeros.
    """
    area = mask.sum(dim=(2, 3), keepdim=True) + 5e-4
    return (features * mask).sum(dim=(2, 3), keepdim=True) / area


def prior_mask(query: Tensor, support: Tensor, eps: float = 1e-7) -> Tensor:
    """Compute how much each query position looks like some foreground position of the support.

    Cosine similarity of every query position to every support position, the maximum over the
    support, scaled to [0, 1] in each image (Tian et al., PFENet, TPAMI 2020, eq. 1-4).

    Args:
        query: (batch, channels, height, width), deep features.
        support: (batch, channels, support height, support width), deep features that are zero
            outside the mask.
        eps: added to the product of norms and to the range.

    Returns:
        (batch, 1, height, width) in [0, 1].
    """
    q, s = query.flatten(2), support.flatten(2)
    dots = s.transpose(1, 2) @ q
    norms = s.norm(dim=1).unsqueeze(2) * q.norm(dim=1).unsqueeze(1)
    nearest = (dots / (norms + eps)).amax(dim=1)
    low, high = nearest.amin(dim=1, keepdim=True), nearest.amax(dim=1, keepdim=True)
    scaled = (nearest - low) / (high - low + eps)
    prior: Tensor = scaled.reshape(-1, 1, *query.shape[-2:])
    return prior


def prior_from_keys(query: Tensor, keys: Sequence[Tensor], eps: float = 1e-7) -> Tensor:
    """Compute `prior_mask` of one query for several supports, each given by its foreground.

    Outside its mask a support's features are zero, and so is their similarity: one column of
    zeros stands for all those positions.

    Args:
        query: (1, channels, height, width), deep features.
        keys: for each support (channels, positions): columns of its deep features.
        eps: as in `prior_mask`.

    Returns:
        (supports, 1, height, width) in [0, 1].
    """
    q, k = query[0].flatten(1), torch.cat(list(keys), dim=1)
    similarity = (k.mT @ q).div_(k.norm(dim=0).unsqueeze(1) * q.norm(dim=0).unsqueeze(0) + eps)
    parts = torch.split(similarity, [part.shape[1] for part in keys])
    nearest = torch.stack([part.amax(dim=0) for part in parts])
    low, high = nearest.amin(dim=1, keepdim=True), nearest.amax(dim=1, keepdim=True)
    scaled = (nearest - low) / (high - low + eps)
    return scaled.reshape(len(keys), 1, *query.shape[-2:])


def gram(features: Tensor) -> Tensor:
    """Compute the cosine between every two channels of a feature map.

    Args:
        features: (batch, channels, height, width).

    Returns:
        (batch, channels, channels).
    """
    flat = features.flatten(2)
    norms = flat.norm(dim=2, keepdim=True)
    cosines: Tensor = (flat @ flat.mT) / (norms @ norms.mT + 1e-7)
    return cosines


def gram_difference(query: Tensor, support: Tensor) -> Tensor:
    """Compute how differently two images look: psi of BAM (Lang et al., CVPR 2022, eq. 8).

    Args:
        query: (..., channels, channels) of `gram`.
        support: the same shape, or one that broadcasts.

    Returns:
        (...): Frobenius norm of the difference, over that of a matrix of ones.
    """
    psi: Tensor = (query - support).norm(dim=(-2, -1)) / query.shape[-1]
    return psi


def generalized_map(final: Tensor, base: Tensor, threshold: float = 0.9) -> Tensor:
    """Merge base and novel classes in one map (BAM's generalized setting).

    Args:
        final: (batch, 2, height, width) of BAM's ensemble. Its foreground is an adjusted
            probability, and is compared as it is: a softmax of two such values ends at 0.73.
        base: (batch, 1 + n, height, width), logits of background and n base classes.
        threshold: foreground from which the novel class covers what the base learner says.

    Returns:
        (batch, height, width): 0 background, 1 to n base classes, n + 1 the novel one.
    """
    novel = final[:, 1] > threshold
    return torch.where(novel, base.shape[1], base.argmax(dim=1))
