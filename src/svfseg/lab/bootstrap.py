"""Bootstrap intervals of differences, over episodes and over runs."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from svfseg.errors import InputError

Floats = npt.NDArray[np.float64]


class Records(NamedTuple):
    """What single episodes gave: class ids, foreground intersections and unions, (episodes,)."""

    classes: npt.NDArray[np.int64]
    intersection: Floats
    union: Floats

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> "Records":
        """Make it from (class id, intersection, union) rows."""
        table = np.asarray(rows, dtype=np.int64).reshape(-1, 3)
        return cls(table[:, 0], table[:, 1].astype(float), table[:, 2].astype(float))


class Interval(NamedTuple):
    """A value with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


def resampled_miou(records: Records, counts: Floats) -> Floats:
    """Compute the mIoU of every resample: (draws,).

    Args:
        records: scores of n episodes.
        counts: (draws, n), how often each episode stands in each resample. A class that a
            resample misses is left out of its mean.
    """
    ids = np.unique(records.classes)
    of_class = (records.classes[:, None] == ids[None]).astype(float)
    both = counts @ (of_class * records.intersection[:, None])
    either = counts @ (of_class * records.union[:, None])
    met = either > 0
    scores = np.divide(both, either, out=np.zeros_like(both), where=met)
    means: Floats = scores.sum(axis=1) / np.maximum(met.sum(axis=1), 1)
    return means


def difference(
    pairs: Sequence[tuple[Records, Records]], draws: int = 2000, seed: int = 0
) -> Interval:
    """Mean over runs of mIoU(a) - mIoU(b), with a bootstrap 95 % interval (percentiles).

    Two levels: runs (folds, seeds) are drawn with replacement, and within each the episodes, the
    same ones for a and b. With two or three runs the first level says little: such an interval
    is too narrow, and a table that shows it says from how many runs it is.

    Args:
        pairs: records of a and of b on the same episodes, for each run.
        draws: resamples.
        seed: seed of the draws.

    Raises:
        InputError: no pairs, or a and b are not of the same episodes.

    Example:
        >>> good = Records.of([(1, 90, 100), (1, 80, 100), (2, 70, 100)])
        >>> poor = Records.of([(1, 50, 100), (1, 40, 100), (2, 30, 100)])
        >>> gap = difference([(good, poor)])
        >>> round(gap.value, 3), gap.low > 0
        (0.4, True)
    """
    if not pairs:
        raise InputError("no runs to compare")
    rng = np.random.default_rng(seed)
    values, sampled = [], []
    for a, b in pairs:
        if not np.array_equal(a.classes, b.classes):
            raise InputError("the runs to compare were scored on different episodes")
        n = len(a.classes)
        every_run = np.ones((1, n))
        values.append(float(resampled_miou(a, every_run)[0] - resampled_miou(b, every_run)[0]))
        counts = rng.multinomial(n, np.full(n, 1 / n), size=draws).astype(float)
        sampled.append(resampled_miou(a, counts) - resampled_miou(b, counts))
    table = np.stack(sampled)
    chosen = rng.integers(len(pairs), size=(len(pairs), draws))
    means = np.take_along_axis(table, chosen, axis=0).mean(axis=0)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(np.mean(values)), float(low), float(high))


def mean_interval(values: Sequence[float], draws: int = 2000, seed: int = 0) -> Interval:
    """Mean of independent values with a bootstrap 95 % interval.

    Example:
        >>> interval = mean_interval([0.4, 0.5, 0.6])
        >>> round(interval.value, 3), interval.low < 0.5 < interval.high
        (0.5, True)
    """
    table = np.asarray(values, dtype=float)
    rng = np.random.default_rng(seed)
    means = table[rng.integers(len(table), size=(draws, len(table)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(table.mean()), float(low), float(high))
