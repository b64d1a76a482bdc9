"""Pooling and prior against slow and plain double precision references."""

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from svfseg.models.functional import average_into, masked_average_pooling, prior_mask, resize


def test_masked_average_pooling_by_loops() -> None:
    features, mask = torch.randn(2, 3, 4, 5).double(), torch.rand(2, 1, 4, 5).double()
    found = masked_average_pooling(features, mask)
    assert found.shape == (2, 3, 1, 1)
    for b in range(2):
        for c in range(3):
            total = sum(features[b, c, y, x] * mask[b, 0, y, x] for y in range(4) for x in range(5))
            expected = total / (mask[b].sum() + 5e-4)
            assert torch.isclose(found[b, c, 0, 0], expected)


def test_an_empty_mask_gives_a_zero_prototype() -> None:
    assert (masked_average_pooling(torch.randn(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)) == 0).all()


def test_prior_mask_by_loops() -> None:
    query, support = torch.randn(1, 6, 3, 4).double(), torch.randn(1, 6, 2, 3).double()
    support[..., 0] = 0  # outside the mask
    similarity = torch.full((3, 4), -2.0).double()
    for y in range(3):
        for x in range(4):
            q = query[0, :, y, x]
            for v in range(2):
                for u in range(3):
                    s = support[0, :, v, u]
                    cosine = (q @ s) / (q.norm() * s.norm() + 1e-7)
                    similarity[y, x] = max(similarity[y, x], cosine)
    low, high = similarity.min(), similarity.max()
    expected = (similarity - low) / (high - low + 1e-7)
    assert torch.allclose(prior_mask(query, support)[0, 0], expected, atol=1e-12)


def test_prior_mask_stays_in_range_and_finds_the_same_thing() -> None:
    torch.manual_seed(0)
    query = torch.randn(2, 16, 5, 5)
    support = torch.zeros(2, 16, 5, 5)
    support[:, :, 2, 2] = query[:, :, 4, 1]
    prior = prior_mask(query, support)
    assert prior.min() >= 0
    assert prior.max() <= 1
    assert (prior.flatten(1).argmax(dim=1) == 4 * 5 + 1).all()


def test_resize_keeps_the_corners() -> None:
    x = torch.randn(1, 2, 4, 6)
    y = resize(x, (9, 13))
    assert y.shape == (1, 2, 9, 13)
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        assert torch.allclose(y[..., corner[0], corner[1]], x[..., corner[0], corner[1]])
    assert resize(x, (4, 6)) is x


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 50), st.integers(1, 50))
def test_averages_are_those_of_adaptive_pooling(h: int, w: int, rows: int, columns: int) -> None:
    x = torch.randn(2, 3, h, w, dtype=torch.float64)
    found = average_into(x, (rows, columns))
    assert torch.allclose(found, F.adaptive_avg_pool2d(x, (rows, columns)), atol=1e-12)
