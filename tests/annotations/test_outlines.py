"""Connected parts and outlines are those of scikit-image."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from skimage import measure

from svfseg.annotations.outlines import number_parts, simplify, trace_rings


def blobs(seed: int) -> np.ndarray:
    """Regions from single pixels to large areas with holes, some touching at corners alone."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 40, 2)
    cell = int(rng.integers(1, 5))
    coarse = rng.random((height // cell + 1, width // cell + 1)) < rng.uniform(0.1, 0.9)
    return np.kron(coarse, np.ones((cell, cell), bool))[:height, :width]


def area(ring: np.ndarray) -> float:
    x, y = ring.T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


@given(st.integers(0, 2**31))
@example(0)
def test_parts_are_numbered_as_scikit_image_does(seed: int) -> None:
    region = blobs(seed)
    assert np.array_equal(number_parts(region), measure.label(region, connectivity=1))


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (4, 0), (1, 1), (3, 5)])
def test_empty_and_full_regions(shape: tuple[int, int]) -> None:
    assert not number_parts(np.zeros(shape, bool)).any()
    assert (number_parts(np.ones(shape, bool)) == 1).all()
    assert trace_rings(np.zeros(shape, bool)) == []


@given(st.integers(0, 2**31))
def test_rings_are_the_contours_of_scikit_image_in_the_same_direction(seed: int) -> None:
    region = blobs(seed)

    def described(rings: list[np.ndarray]) -> list[tuple[float, list[list[float]]]]:
        return sorted((area(ring), sorted(ring[:-1].tolist())) for ring in rings)

    theirs = measure.find_contours(np.pad(region, 1).astype(float), 0.5)
    ours = trace_rings(region)
    assert described(ours) == described([ring[:, ::-1] - 0.5 for ring in theirs])
    for ring in ours:
        assert (ring[0] == ring[-1]).all()
        assert (np.abs(np.diff(ring, axis=0)).max(axis=1) <= 1).all()


@given(st.integers(0, 2**31), st.sampled_from([0.25, 0.5, 0.75, 3.0]))
def test_a_simplified_ring_stays_within_the_tolerance(seed: int, tolerance: float) -> None:
    for ring in trace_rings(blobs(seed)):
        simple = simplify(ring, tolerance)
        assert (simple[[0, -1]] == ring[[0, -1]]).all()
        places = [np.flatnonzero((ring == point).all(axis=1))[0] for point in simple[:-1]]
        for start, end in zip(places, [*places[1:], len(ring) - 1], strict=True):
            assert start < end
            assert farthest(ring[start : end + 1]) <= tolerance + 1e-9


def test_a_simplified_ring_has_as_many_points_as_that_of_scikit_image() -> None:
    """In sum: where two points are equally far, either may stay."""
    rings = [ring for seed in range(60) for ring in trace_rings(blobs(seed))]
    for tolerance in (0.25, 0.75, 3.0):
        ours = sum(len(simplify(ring, tolerance)) for ring in rings)
        theirs = sum(len(measure.approximate_polygon(ring, tolerance)) for ring in rings)
        assert abs(ours / theirs - 1) < 0.02


def farthest(points: np.ndarray) -> float:
    """The greatest distance from the segment between the first point and the last, by sampling."""
    line = points[0] + np.linspace(0, 1, 2001)[:, None] * (points[-1] - points[0])
    if (points[0] == points[-1]).all():
        return float(np.linalg.norm(points - points[0], axis=1).max())
    step = float(np.linalg.norm(points[-1] - points[0])) / 2000
    near = np.linalg.norm(points[:, None] - line[None], axis=2).min(axis=1)
    return float(max(0, near.max() - step))
