import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from svfseg.data.index import Sample
from svfseg.segmenter.tiling import Window, blend, cut, marked_windows, windows


@given(st.integers(1, 120), st.integers(1, 120), st.integers(8, 70), st.floats(0, 0.8))
def test_windows_cover_and_overlap(height: int, width: int, side: int, overlap: float) -> None:
    places = windows(height, width, side, overlap)
    seen = np.zeros((height, width), int)
    for top, left, rows, columns in places:
        assert top >= 0
        assert top + rows <= height
        assert rows == min(side, height)
        assert left >= 0
        assert left + columns <= width
        assert columns == min(side, width)
        seen[top : top + rows, left : left + columns] += 1
    assert seen.min() >= 1
    tops = sorted({place.top for place in places})
    for a, b in itertools.pairwise(tops):
        assert b - a <= max(1, side * (1 - overlap)) + 1


@given(st.integers(20, 90), st.integers(20, 90), st.integers(8, 40), st.integers(0, 2**31))
def test_windows_of_one_map_give_that_map(height: int, width: int, side: int, seed: int) -> None:
    whole = torch.rand(2, height, width, generator=torch.Generator().manual_seed(seed))
    places = windows(height, width, side, 0.3)
    parts = [whole[:, t : t + h, left : left + w] for t, left, h, w in places]
    torch.testing.assert_close(blend(parts, places, height, width, 2), whole)


def test_supports_are_cut_around_what_is_marked() -> None:
    mask = np.zeros((300, 300), np.uint8)
    mask[250:260, 10:20] = 1
    image = np.zeros((300, 300, 3), np.uint8)
    parts = marked_windows(Sample(image, mask), 100, 0.25)
    assert 1 <= len(parts) <= 4
    assert all((part.mask == 1).any() and part.image.shape == (100, 100, 3) for part in parts)
    empty = marked_windows(Sample(image, mask * 0), 100, 0.25, most=4)
    assert 1 < len(empty) <= 4
    assert cut(mask, Window(250, 10, 10, 10)).all()


@pytest.mark.parametrize(("side", "overlap"), [(0, 0.2), (10, 1.0), (10, -0.1)])
def test_wrong_windows(side: int, overlap: float) -> None:
    with pytest.raises(ValueError, match="expected 1 or more, and 0 to below 1"):
        windows(50, 50, side, overlap)


def test_where_windows_disagree_no_seam_is_left() -> None:
    """Two windows, one of zeros and one of ones: the blend climbs in small, even steps."""
    places = windows(16, 112, 64, 0.25)
    assert [place.left for place in places] == [0, 48]
    parts = [torch.zeros(1, 16, 64), torch.ones(1, 16, 64)]
    row = blend(parts, places, 16, 112, 1)[0, 8]
    steps = row.diff()
    assert row[0] == 0
    assert row[-1] == 1
    assert (steps >= 0).all()
    # 16 pixels of overlap: a mean with uniform weights would jump by a half at both its ends
    assert steps.max() < 0.15
