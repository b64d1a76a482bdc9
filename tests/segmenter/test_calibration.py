"""Where maps are cut, when a class counts as present, and what similarity says."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from svfseg.models.presence import presence_score
from svfseg.segmenter.thresholds import (
    PRIOR,
    THRESHOLDS,
    best_threshold,
    largest_free_strip,
    presence_threshold,
    youden_threshold,
)


def test_the_cut_with_the_highest_iou() -> None:
    map_ = torch.tensor([[0.9, 0.35, 0.2, 0.05]])
    target = torch.tensor([[1, 1, 0, 255]])
    cut, iou = best_threshold([map_], [target])
    assert (cut, iou) == (0.3, 1.0)  # of 0.2, 0.25, 0.3 the nearest to one half
    assert best_threshold([map_], [target], (0.5,)) == (0.5, 0.5)
    cut, iou = best_threshold([map_], [torch.zeros(1, 4)])
    assert cut == 0.5
    assert np.isnan(iou)


@given(st.integers(0, 2**31))
def test_no_other_cut_is_better(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.rand(5, 6, generator=generator) for _ in range(3)]
    targets = [torch.randint(0, 2, (5, 6), generator=generator) for _ in range(3)]
    targets[0][0, 0] = 1
    _, best = best_threshold(maps, targets)
    assert best == max(best_threshold(maps, targets, (cut,))[1] for cut in THRESHOLDS)


def test_a_cut_lies_between_or_where_errors_are_least() -> None:
    assert youden_threshold([0.8, 0.6], [0.2, 0.4]) == 0.5
    cut = youden_threshold([0.9, 0.8, 0.3], [0.1, 0.2, 0.4])
    assert 0.2 < cut < 0.3 or 0.4 < cut < 0.8


def test_presence_follows_the_supports_the_more_there_are() -> None:
    """From above the images without the class to where it is told apart best."""
    missing = [0.1, 0.3]
    assert presence_threshold([], missing) == pytest.approx(0.3)
    assert presence_threshold([0.9] * PRIOR, missing) == pytest.approx((0.3 + 0.6) / 2)
    cuts = [presence_threshold([0.9] * count, missing) for count in (1, 2, 5, 100)]
    assert cuts == sorted(cuts)
    assert 0.3 < cuts[0] < cuts[-1] < 0.6


@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=8),
    st.lists(st.floats(-1, 1), min_size=1, max_size=8),
)
def test_no_other_cut_makes_fewer_errors(there: list[float], missing: list[float]) -> None:
    def error(cut: float) -> float:
        lost = sum(e < cut for e in there) / len(there)
        return lost + sum(e >= cut for e in missing) / len(missing)

    values = sorted({*there, *missing})
    others = [(a + b) / 2 for a, b in itertools.pairwise(values)]
    found = error(youden_threshold(there, missing))
    assert all(found <= error(cut) + 1e-9 for cut in others)


def test_evidence_is_high_where_the_class_is() -> None:
    torch.manual_seed(0)
    key = torch.nn.functional.normalize(torch.randn(16, 1), dim=0)
    deep = torch.randn(16, 6, 6)
    absent = presence_score(deep, key, torch.rand(24, 24))
    deep[:, 2:4, 2:4] = key[:, :, None]
    found = torch.zeros(24, 24)
    found[8:16, 8:16] = 1
    assert presence_score(deep, key, found) == pytest.approx(1, abs=0.2)
    assert absent < 0.6
    assert presence_score(deep, torch.zeros(16, 1), found) == 0


def test_the_part_without_a_class() -> None:
    mask = np.zeros((200, 300), np.uint8)
    mask[10:150, 20:120] = 3
    rows, columns = largest_free_strip(mask, 3)
    assert (rows, columns) == (slice(0, 200), slice(120, 300))
    assert not (mask[rows, columns] == 3).any()
    assert largest_free_strip(mask, 1) == (slice(0, 200), slice(0, 300))
    mask[:] = 3
    assert largest_free_strip(mask, 3) is None
