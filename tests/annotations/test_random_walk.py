"""The shares of random walks are those of scikit-image, and what they must be by hand."""

import numpy as np
import pytest
from skimage import data
from skimage.segmentation import random_walker
from skimage.transform import resize

from svfseg.annotations.random_walk import walk_shares
from svfseg.errors import InputError


@pytest.mark.parametrize("name", ["chelsea", "coffee"])
def test_shares_are_those_of_scikit_image(name: str) -> None:
    image = resize(getattr(data, name)(), (60, 90))
    seeds = np.full(image.shape[:2], 2)
    seeds[1:-1, 1:-1] = 0
    seeds[25:30, 40:45] = 1
    theirs = random_walker(
        image, seeds.copy(), beta=700, mode="cg_j", return_full_prob=True, channel_axis=-1,
        prob_tol=1,
    )[0]  # fmt: skip
    assert np.allclose(walk_shares(image, seeds == 1, seeds == 2), theirs, atol=1e-6)


def test_without_edges_the_share_falls_evenly_between_two_seeds() -> None:
    flat = np.full((1, 11, 3), 0.5)
    inside, outside = np.zeros((2, 1, 11), bool)
    inside[0, 0] = outside[0, -1] = True
    shares = walk_shares(flat, inside, outside)
    assert np.allclose(shares[0], np.linspace(1, 0, 11), atol=1e-2)


def test_an_edge_of_the_image_holds_walks_back() -> None:
    image = np.zeros((9, 20, 3))
    image[:, 10:] = 1
    inside, outside = np.zeros((2, 9, 20), bool)
    inside[4, 2] = outside[4, 17] = True
    shares = walk_shares(image, inside, outside)
    assert shares[:, :10].min() > 0.9
    assert shares[:, 10:].max() < 0.1


def test_seeds_of_one_kind_and_none() -> None:
    image = np.random.default_rng(0).random((5, 6, 3))
    seed, none = np.zeros((2, 5, 6), bool)
    seed[2, 2] = True
    assert np.allclose(walk_shares(image, seed, none), 1, atol=1e-2)
    assert not walk_shares(image, none, seed).any()
    assert np.array_equal(walk_shares(image, ~none, none), np.ones((5, 6)))
    with pytest.raises(InputError, match="found none inside the image"):
        walk_shares(image, none, none)
