"""Where positions lie, measured by other means; and maps moved between grids."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from svfseg.config import BackboneConfig
from svfseg.models import build_backbone
from svfseg.models.geometry import PIXELS, Lattice, pool, sample


def peak_places(backbone: torch.nn.Module, stage: int, side: int, axis: int) -> list[float]:
    """Where a square must lie so that a position answers most, less stride times the position.

    A square of eight pixels is moved pixel by pixel along one axis through the middle; the place
    is the mean of its places, weighed by how much the position answers.
    """
    grey = torch.full((1, 3, side, side), 127.0)
    with torch.no_grad():
        still = backbone(grey)[stage]
        starts = range(side // 4, 3 * side // 4)
        answers = []
        for at in starts:
            image = grey.clone()
            rows, columns = slice(side // 2 - 4, side // 2 + 4), slice(at, at + 8)
            if axis == 0:
                rows, columns = columns, rows
            image[..., rows, columns] = 255
            change = (backbone(image)[stage] - still).square().sum(dim=1)[0]
            answers.append(change.sum(dim=1 - axis))
    response = torch.stack(answers).double()  # (places, positions)
    stride = side / response.shape[1]
    centers = torch.tensor([at + 4.0 for at in starts], dtype=torch.double)
    middle = range(round(0.42 * response.shape[1]), round(0.58 * response.shape[1]) + 1)
    return [
        float((response[:, i] * centers).sum() / response[:, i].sum() - stride * i) for i in middle
    ]


CASES = [
    ("tf_efficientnet_lite0", "imagenet", 16, 3, 256),
    ("tf_efficientnet_lite0", "imagenet", 16, 2, 128),
    ("vgg16", "none", 16, 2, 128),
    ("resnet50", "none", 8, 1, 64),
    ("mobilenet_v2", "none", 16, 2, 128),
    ("test_resnet", "none", 16, 2, 64),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "weights", "stride", "stage", "side"), CASES)
def test_positions_lie_where_a_moved_square_is_answered(
    name: str, weights: str, stride: int, stage: int, side: int
) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(BackboneConfig(name, weights, output_stride=stride)).eval()
    lattice = backbone.lattices()[stage]
    for axis, stated in ((0, lattice.top), (1, lattice.left)):
        assert np.mean(peak_places(backbone, stage, side, axis)) == pytest.approx(stated, abs=1)


def test_the_default_backbone_is_no_aligned_grid() -> None:
    """What was believed: position i at 16.8 i; what is so: at 16 i + 8 to 10."""
    backbone = build_backbone(BackboneConfig("tf_efficientnet_lite0", output_stride=16)).eval()
    lattice = backbone.lattices()[3]
    assert lattice.stride == 16
    assert 8 <= lattice.top <= 10.5
    assert 8 <= lattice.left <= 10.5


def test_measuring_changes_nothing() -> None:
    backbone = build_backbone(BackboneConfig("test_resnet", "none", norm="train")).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    assert backbone.lattices() is backbone.lattices()
    assert backbone.training
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name]), name


lattices = st.builds(
    Lattice, st.sampled_from([1.0, 2.0, 4.0, 7.5]), st.floats(-3, 9), st.floats(-3, 9)
)


@given(lattices, lattices, st.integers(2, 6), st.integers(2, 9), st.integers(1, 12))
def test_a_plane_stays_a_plane(
    source: Lattice, target: Lattice, rows: int, columns: int, count: int
) -> None:
    """What grows evenly over the image is read at the right value wherever positions are known."""
    down = source.top + source.stride * torch.arange(rows, dtype=torch.double)
    right = source.left + source.stride * torch.arange(columns, dtype=torch.double)
    maps = down[:, None] + 10 * right[None]
    found = sample(maps, source, target, (count, count))
    own_down = target.top + target.stride * torch.arange(count, dtype=torch.double)
    own_right = target.left + target.stride * torch.arange(count, dtype=torch.double)
    expected = own_down.clamp(down[0], down[-1])[:, None] + 10 * own_right.clamp(
        right[0], right[-1]
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


@given(lattices, st.integers(5, 30), st.integers(5, 30), st.integers(1, 5), st.integers(0, 99))
def test_pooling_is_the_mean_of_a_square(
    lattice: Lattice, height: int, width: int, count: int, seed: int
) -> None:
    """Against one counted on a grid sixteen times as fine."""
    mask = torch.from_numpy(np.random.default_rng(seed).random((height, width)) < 0.5).double()
    found = pool(mask, lattice, (count, count))
    fine = mask.repeat_interleave(16, 0).repeat_interleave(16, 1)
    for i in range(count):
        for j in range(count):
            down = min(lattice.top + lattice.stride * i, height - 0.5)
            right = min(lattice.left + lattice.stride * j, width - 0.5)
            if down + lattice.stride / 2 <= 0.1 or right + lattice.stride / 2 <= 0.1:
                continue
            low, high = (
                [max(0, round(16 * (c + s * lattice.stride / 2))) for c in (down, right)]
                for s in (-1, 1)
            )
            part = fine[low[0] : max(low[0] + 1, high[0]), low[1] : max(low[1] + 1, high[1])]
            assert float(found[i, j]) == pytest.approx(float(part.mean()), abs=0.13)


def test_pixels_to_themselves() -> None:
    maps = torch.rand(2, 5, 7)
    torch.testing.assert_close(sample(maps, PIXELS, PIXELS, (5, 7)), maps)
    torch.testing.assert_close(pool(maps, PIXELS, (5, 7)), maps)
