"""Sizes, padding and augmentation of the published protocol."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from svfseg.data.transforms import (
    FILL,
    augment,
    class_mask,
    crop,
    fit_image,
    fit_mask,
    fitted_size,
    logits_at_original,
    pad,
    resize_image,
    resize_mask,
    to_tensor,
)


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [
        (375, 500, 473, (352, 472)),  # 354.75 -> 354 -> 352; 473 -> 472
        (500, 375, 473, (472, 352)),
        (500, 500, 473, (472, 472)),
        (427, 640, 641, (424, 640)),
        (480, 640, 321, (240, 320)),
        (10, 1000, 473, (8, 472)),  # never below 8
    ],
)
def test_fitted_size(height: int, width: int, size: int, expected: tuple[int, int]) -> None:
    assert fitted_size(height, width, size) == expected


def test_fit_puts_the_image_top_left_on_black_and_255() -> None:
    image, mask = torch.full((3, 30, 60), 200.0), torch.ones(30, 60, dtype=torch.uint8)
    fitted, marked = fit_image(image, 65), fit_mask(mask, 65)
    assert fitted.shape == (3, 65, 65)
    assert (fitted[:, :32, :64] == 200).all()
    assert fitted.sum() == 200 * 3 * 32 * 64
    assert (marked[:32, :64] == 1).all()
    assert (marked == 255).sum() == 65 * 65 - 32 * 64


def test_logits_return_to_the_original_size() -> None:
    logits = torch.randn(2, 33, 33)
    found = logits_at_original(logits, 60, 100)
    whole = torch.nn.functional.interpolate(
        logits[None], (100, 100), mode="bilinear", align_corners=True
    )
    assert torch.equal(found, whole[0, :, :60])


def test_resizing_is_opencvs_not_antialiased() -> None:
    """Halving by INTER_LINEAR averages 2 x 2 exactly; an antialiased resize would not."""
    image = torch.arange(64.0).reshape(1, 8, 8).repeat(3, 1, 1)
    expected = image.reshape(3, 4, 2, 4, 2).mean(dim=(2, 4))
    assert torch.allclose(resize_image(image, (4, 4)), expected)
    mask = torch.arange(64, dtype=torch.uint8).reshape(8, 8)
    assert torch.equal(resize_mask(mask, (4, 4)), mask[::2, ::2])


def test_class_mask_keeps_ignore() -> None:
    ids = np.array([[0, 5, 6], [255, 5, 0]], np.uint8)
    assert class_mask(ids, 5).tolist() == [[0, 1, 0], [255, 1, 0]]


def test_to_tensor_keeps_values() -> None:
    image = np.asarray(Image.new("RGB", (4, 2), (1, 2, 3)))
    tensor = to_tensor(image)
    assert tensor.shape == (3, 2, 4)
    assert tensor[:, 0, 0].tolist() == [1, 2, 3]


@settings(deadline=None, max_examples=30)
@given(
    st.integers(20, 90), st.integers(20, 90), st.sampled_from([33, 64]), st.booleans(),
    st.integers(0, 10**6),
)  # fmt: skip
def test_augmentation_keeps_sizes_values_and_choices(
    height: int, width: int, size: int, fit: bool, seed: int
) -> None:
    image = torch.rand(3, height, width) * 255
    mask = torch.zeros(height, width, dtype=torch.uint8)
    rows, columns = height // 2, width // 2
    mask[rows - 4 : rows + 4, columns - 4 : columns + 4] = 1

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        return augment(image, mask, size, (0.9, 1.1), fit, np.random.default_rng(seed))

    found, marked = run()
    assert found.shape == (3, size, size)
    assert marked.shape == (size, size)
    assert set(marked.unique().tolist()) <= {0, 1, 255}
    assert found.min() >= -1e-3
    assert found.max() <= 255 + 1e-3
    assert (marked == 1).any()
    again = run()
    assert torch.equal(again[0], found)
    assert torch.equal(again[1], marked)


def test_padding_is_the_mean_colour_and_ignored() -> None:
    image, mask = pad(torch.zeros(3, 10, 21), torch.zeros(10, 21, dtype=torch.uint8), 16)
    assert image.shape == (3, 16, 21)
    assert torch.allclose(image[:, 0, 0], torch.tensor(FILL))
    assert (mask[:3] == 255).all()
    assert (mask[13:] == 255).all()
    assert (mask[3:13] == 0).all()


def test_crops_keep_most_of_the_class() -> None:
    mask = torch.zeros(200, 200, dtype=torch.uint8)
    mask[100:140, 100:140] = 1
    image = torch.zeros(3, 200, 200)
    kept = [
        int((crop(image, mask, 100, np.random.default_rng(i))[1] == 1).sum()) / 1600
        for i in range(40)
    ]
    assert np.mean(kept) > 0.85
    assert np.mean([k >= 0.85 for k in kept]) > 0.8


def test_image_and_mask_move_together() -> None:
    """The class is painted bright: after any augmentation bright and marked agree."""
    mask = torch.zeros(80, 90, dtype=torch.uint8)
    mask[20:60, 25:65] = 1
    image = mask[None].repeat(3, 1, 1).float() * 255
    for seed in range(12):
        found, marked = augment(image, mask, 65, (0.9, 1.1), False, np.random.default_rng(seed))
        valid = marked != 255
        assert ((found[0] > 127) == (marked == 1))[valid].float().mean() > 0.97
