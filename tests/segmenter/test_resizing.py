"""Images of any size and shape, and masks that come back to where they were drawn."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from svfseg.models import Backbone
from svfseg.models.dense import Dense, DenseQuery, DenseSupport
from svfseg.segmenter.inference import Predictor
from svfseg.segmenter.resizing import MULTIPLE, at_original, fit_image, fit_mask, fitted_sides


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(32, 1000))
def test_sides_keep_their_ratio(height: int, width: int, size: int) -> None:
    rows, columns = fitted_sides(height, width, size)
    assert max(rows, columns) == size
    ratio = size / max(height, width)
    assert abs(rows - height * ratio) <= 0.5 or rows == 1
    assert abs(columns - width * ratio) <= 0.5 or columns == 1


@settings(max_examples=25)
@given(st.integers(2, 90), st.integers(2, 90), st.integers(32, 96), st.booleans())
def test_image_and_mask_are_fitted_alike(
    height: int, width: int, size: int, any_shape: bool
) -> None:
    image = np.full((height, width, 3), 200, np.uint8)
    fitted = fit_image(image, size, any_shape)
    mask = fit_mask(torch.ones(height, width, dtype=torch.uint8), size, any_shape)
    assert fitted.image.shape[1:] == mask.shape
    assert mask.shape[0] % MULTIPLE == 0 if any_shape else mask.shape == (size, size)
    filled = torch.zeros_like(mask, dtype=torch.bool)
    filled[: fitted.height, : fitted.width] = True
    assert torch.equal(mask == 1, filled)
    assert torch.equal(mask == 255, ~filled)
    assert bool((fitted.image[:, filled] == 200).all())
    beside = fitted.image[:, ~filled]
    assert bool((beside == (200 if any_shape else 0)).all())
    back = at_original(mask[None].float(), fitted, height, width)
    assert back.shape == (1, height, width)
    torch.testing.assert_close(back, torch.ones_like(back))


class Ramp(Dense):
    """Where the picture is brighter than a share of white, by features at stride 16."""

    def __init__(self, share: float) -> None:
        stages = [*(nn.AvgPool2d(2) for _ in range(4)), nn.Identity()]
        super().__init__(Backbone(stages, (3,) * 5, (0.0,) * 3, (1.0,) * 3))
        self.share = share

    def query(self, stages: Sequence[Tensor]) -> DenseQuery:
        return DenseQuery(stages[3])

    def compare(self, query: DenseQuery, supports: Sequence[DenseSupport]) -> Tensor:
        difference = query.deep[0].mean(dim=0) / 255 - self.share
        return torch.stack([difference, torch.zeros_like(difference), difference])


# Pictures people have, with an edge at a quarter, a half and three quarters of each side.
SHAPES = [(427, 640), (1080, 1920), (2250, 4000), (4000, 400)]


CASES = [
    (shape, axis, place, size)
    for shape in SHAPES
    for axis in (0, 1)
    for place in (0.25, 0.5, 0.75)
    for size in (320, 640)
    # nearer to the border than the outermost position, a map cannot tell
    if min(place, 1 - place) * shape[axis] * size / max(shape) > 8.5
]


@pytest.mark.parametrize(("shape", "axis", "place", "size"), CASES)
def test_an_edge_comes_back_where_it_is(
    shape: tuple[int, int], axis: int, place: float, size: int
) -> None:
    """Within one pixel of the network's own scale, whatever the picture's sides."""
    extent = shape[axis]
    ramp = ((np.arange(extent) + 0.5) / extent * 255).astype(np.uint8)
    grey = np.broadcast_to(ramp[:, None] if axis == 0 else ramp[None], shape)
    image = np.repeat(grey[..., None], 3, axis=2)
    predictor = Predictor(Ramp(place).eval(), size)
    ((logits, _),) = predictor.predict_maps([image], {1: []})
    outside = (logits[0] <= 0).sum(dim=axis).float()
    pixel = max(1.0, max(shape) / size)
    assert float((outside - place * extent).abs().max()) <= pixel + extent / 255
