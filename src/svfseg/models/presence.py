"""Score whether a class is in an image at all."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def presence_score(deep: Tensor, keys: Tensor, probability: Tensor) -> float:
    """Score how much the outline, and the image where it fits best, look like the supports.

    The prior mask is stretched to [0, 1] in each image, so a head outlines something in any image.
    What tells whether the class is there is the similarity before that: the mean of its
    highest 2 % of positions, and of all positions weighed by the probability of the class.

    Args:
        deep: (channels, height, width), deep features of the query.
        keys: (channels, positions), deep features inside the supports' masks.
        probability: (rows, columns), probability of the class.

    Returns:
        A cosine in [-1, 1].
    """
    query = F.normalize(deep.flatten(1), dim=0)
    inside = F.normalize(keys[:, keys.norm(dim=0) > 0], dim=0)
    if inside.shape[1] == 0:
        return 0.0
    nearest = (inside.T @ query).amax(dim=0)
    share = F.interpolate(probability[None, None], deep.shape[-2:], mode="area").flatten()
    weighted = (nearest * share).sum() / share.sum().clamp_min(1e-6)
    best = nearest.topk(max(1, len(nearest) // 50)).values.mean()
    return float((weighted + best) / 2)


def presence_in_filled_part(
    deep: Tensor, keys: Sequence[Tensor], probability: Tensor, size: tuple[int, int]
) -> float:
    """Score presence in the part of a padded input that the image fills: see `presence_score`.

    Args:
        deep: (1, channels, height, width), features of the padded input.
        keys: (channels, positions) of each support.
        probability: (rows, columns) of the part that the image fills, in pixels of the input.
        size: height and width of the padded input.
    """
    features = deep[0].float().cpu()
    rows = max(1, round(features.shape[1] * probability.shape[0] / size[0]))
    columns = max(1, round(features.shape[2] * probability.shape[1] / size[1]))
    inside = torch.cat(list(keys), dim=1).float().cpu()
    return presence_score(features[:, :rows, :columns], inside, probability)
