import json
from pathlib import Path

import numpy as np
import pytest

from svfseg.annotations.inputs import as_mask
from svfseg.annotations.labelme import marked_labels, read_marks
from svfseg.annotations.marks import draw_marks


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
    assert np.array_equal(as_mask(marks, image, ["thing"]), mask)


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


def test_one_click_on_what_is_not_it_does_not_open_the_border(
    scene: tuple[np.ndarray, np.ndarray],
) -> None:
    """Marks of background leave the border what it is, but for its part beside the class."""
    image, disc = scene
    click = (80, 60)
    alone = draw_marks({"clicks": [click]}, image) == 1
    not_this = {"points": (20, 60), "class": 0}
    both = draw_marks({"clicks": [click, not_this]}, image) == 1
    assert both.sum() < 1.3 * alone.sum()
    assert (both & disc).sum() / (both | disc).sum() > 0.8
    # a thing that the image cuts off reaches the border
    cut = disc[:, 80:]
    line, beside = [(5, 33), (5, 60), (5, 87)], {"points": (70, 60), "class": 0}
    found = draw_marks({"scribbles": [line], "clicks": [beside]}, image[:, 80:]) == 1
    assert found[60, 0]
    assert (found & cut).sum() / (found | cut).sum() > 0.8


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


def labelme(path: Path, *shapes: tuple[str, str, list], size: tuple[int, int] = (120, 160)) -> Path:
    """A file as labelme leaves it."""
    content = {
        "version": "5.5.0",
        "shapes": [{"label": n, "shape_type": kind, "points": p} for n, kind, p in shapes],
        "imageHeight": size[0],
        "imageWidth": size[1],
    }
    path.write_text(json.dumps(content))
    return path


def test_shapes_of_labelme_are_the_same_as_marks(
    scene: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    image, disc = scene
    square = [[10, 10], [30, 10], [30, 30], [10, 30]]
    path = labelme(
        tmp_path / "a.json",
        ("hole", "polygon", square),
        ("disc", "rectangle", [[45, 25], [115, 95]]),
        ("background", "point", [[5, 5]]),
        ("note", "point", [[150, 5]]),
    )
    assert marked_labels(path) == ["hole", "disc", "note"]
    found = as_mask(path, image, ["disc", "hole"])
    marks = {
        "boxes": [{"points": [45, 25, 115, 95], "class": 1}],
        "clicks": [{"points": (5, 5), "class": 0}],
        "polygons": [{"points": square, "class": 2}],
    }
    assert np.array_equal(found, draw_marks(marks, image, 2))
    whole = labelme(tmp_path / "b.json", ("disc", "circle", [[80, 60], [80, 95]]))
    round_one = as_mask(whole, image, ["disc"]) == 1
    assert (round_one & disc).sum() / (round_one | disc).sum() > 0.95


def test_marks_of_ours_as_a_file(scene: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    path = tmp_path / "marks.json"
    marks = {"clicks": [[80, 60], {"points": [10, 10], "class": "background"}]}
    path.write_text(json.dumps(marks))
    expected = draw_marks({"clicks": [(80, 60), {"points": (10, 10), "class": 0}]}, scene[0])
    assert np.array_equal(as_mask(path, scene[0], ["disc"]), expected)
    path.write_text(json.dumps({"clicks": [{"points": [80, 60], "class": "disc"}]}))
    assert marked_labels(path) == ["disc"]
    assert read_marks(path, ["hole", "disc"])["clicks"][0]["class"] == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "holds no marks"),
        ('{"shapes": []}', "marks nothing: expected disc"),
        ('{"shapes": [{"label": "dics", "points": [[1, 1]]}]}', "marks dics: expected disc"),
        ('{"shapes": [{"label": "disc", "shape_type": "mask"}]}', "type mask: expected polygon"),
        ('{"shapes": [], "imageHeight": 9, "imageWidth": 8}', "image of 8x9, this one has 160x120"),
    ],
)
def test_wrong_files_of_marks(
    content: str, message: str, scene: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    (tmp_path / "marks.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        as_mask(tmp_path / "marks.json", scene[0], ["disc"])
