"""Score masks against the truth: regions, boundaries, presence, and how well confidence sorts."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from svfseg.data.images import Array

Mask = npt.NDArray[np.bool_]


def pooled_iou(found: Sequence[Mask], truth: Sequence[Array]) -> float:
    """Give the intersections of all images over their unions; where truth is 255 nothing counts.

    Returns:
        NaN where nothing is found or marked.
    """
    shared = joined = 0
    for inside, ids in zip(found, truth, strict=True):
        counted, marked = inside & (ids != 255), ids == 1
        shared += int((counted & marked).sum())
        joined += int((counted | marked).sum())
    return shared / joined if joined else float("nan")


def image_iou(inside: Mask, truth: Array) -> float:
    """Give the IoU of one image; 1 where nothing is found and nothing is marked."""
    iou = pooled_iou([inside], [truth])
    return 1.0 if np.isnan(iou) else iou


def boundary_f(inside: Mask, truth: Array, tolerance: int = 2) -> float:
    """Give the F-measure of boundaries within a tolerance (Csurka et al., BMVC 2013).

    Args:
        inside: (height, width).
        truth: (height, width) of 0, 1 and 255; boundaries beside unknown pixels do not count.
        tolerance: distance up to which boundary pixels match.

    Returns:
        1 where neither has a boundary, 0 where only one has; NaN where the class is marked, but
        all of its boundary lies beside unknown pixels.
    """
    known = _grown(truth == 255, 1) == 0
    whole = _boundary(truth == 1)
    found, marked = _boundary(inside) & known, whole & known
    if whole.any() and not marked.any():
        return float("nan")
    if not found.any() and not marked.any():
        return 1.0
    if not found.any() or not marked.any():
        return 0.0
    precision = float((found & _grown(marked, tolerance)).sum() / found.sum())
    recall = float((marked & _grown(found, tolerance)).sum() / marked.sum())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _boundary(mask: Mask) -> Mask:
    """Pixels of a mask beside others that are not in it."""
    padded = np.pad(mask, 1, mode="edge")
    middle = padded[1:-1, 1:-1]
    within = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return middle & ~within


def _grown(mask: Mask, radius: int) -> Mask:
    """Grow a mask by a disc."""
    span = torch.arange(-radius, radius + 1)
    disc = ((span[:, None] ** 2 + span**2) <= radius**2).float()[None, None]
    counts = F.conv2d(torch.from_numpy(mask).float()[None, None], disc, padding=radius)
    return (counts[0, 0] > 0.5).numpy()


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Give Spearman's rank correlation, ties sharing their mean rank; NaN if one is flat."""
    ranks = [_ranks(values) for values in (first, second)]
    if len(first) < 2 or any(np.ptp(each) == 0 for each in ranks):
        return float("nan")
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: Sequence[float]) -> npt.NDArray[np.float64]:
    array = np.asarray(values, float)
    return np.array([
        (array < value).sum() + ((array == value).sum() - 1) / 2 for value in array
    ])  # fmt: skip
