import numpy as np
import pytest

from svfseg.data.given import as_mask
from svfseg.data.marks import draw_marks


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray]:
    """A bright disc on a noisy dark ground, and where it is."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:120, :160]
    disc = (rows - 60) ** 2 + (columns - 80) ** 2 < 35**2
    image = rng.integers(0, 60, (120, 160, 3)) + 150 * disc[..., None]
    return image.astype(np.uint8), disc


@pytest.mark.parametrize(
    "marks",
    [
        {"boxes": [(45, 25, 115, 95)]},
        {"clicks": [(80, 60)]},
        {"scribbles": [[(60, 60), (100, 60)]]},
        {"clicks": [(80, 60), {"points": (10, 10), "class": 0}]},
    ],
    ids=str,
)
def test_a_region_grows_to_the_things_edge(
    marks: dict, scene: tuple[np.ndarray, np.ndarray]
) -> None:
    image, disc = scene
    mask = draw_marks(marks, image)
    assert set(np.unique(mask)) <= {0, 1, 255}
    known = mask != 255
    shared, joined = ((mask == 1) & disc).sum(), (((mask == 1) | disc) & known).sum()
    assert shared / joined > 0.9
    assert np.array_equal(as_mask(marks, image, 1), mask)


def test_a_polygon_is_its_inside_and_lies_on_top(scene: tuple[np.ndarray, np.ndarray]) -> None:
    image, _ = scene
    square = [(10, 10), (30, 10), (30, 30), (10, 30)]
    mask = draw_marks({"polygons": [square]}, image)
    assert mask[10:31, 10:31].all()
    assert mask.sum() == 21 * 21
    both = draw_marks(
        {"boxes": [(45, 25, 115, 95)],
         "polygons": [{"points": [(70, 50), (90, 50), (90, 70)], "class": 2}]},
        image,
        classes=2,
    )  # fmt: skip
    assert both[55, 85] == 2
    assert both[80, 80] == 1


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        ({"circles": []}, "unknown kind of marks circles"),
        ({"boxes": [(1, 2, 3)]}, "3 numbers: expected left, top, right, bottom"),
        ({"polygons": [[(1, 2), (3, 4)]]}, "2 points: expected 3 or more"),
        ({"clicks": [(500, 500)]}, "outside the image of 160x120"),
        ({"clicks": [{"points": (5, 5), "class": 2}]}, "of class 2: expected 0"),
        ({"scribbles": [[1, 2, 3]]}, "3 numbers: expected points"),
    ],
)
def test_wrong_marks(marks: dict, message: str, scene: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=message):
        draw_marks(marks, scene[0])
