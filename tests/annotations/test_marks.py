import base64
import io
import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svfseg.annotations.coco_masks import compressed, expanded, from_run_lengths, run_lengths
from svfseg.annotations.inputs import as_mask
from svfseg.annotations.marks import draw_marks
from svfseg.annotations.marks_files import marked_labels, read_marks
from svfseg.annotations.writers import WRITERS, Named, join_coco
from svfseg.errors import InputError


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
        ('{"shapes": [{"label": "disc", "shape_type": "cube", "points": []}]}', "of the type cube"),
        ('{"shapes": [], "imageHeight": 9, "imageWidth": 8}', "image of 8x9, this one has 160x120"),
    ],
)
def test_wrong_files_of_marks(
    content: str, message: str, scene: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    (tmp_path / "marks.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        as_mask(tmp_path / "marks.json", scene[0], ["disc"])


SQUARE = [[20, 20], [60, 20], [60, 60], [20, 60]]
DRAWN = np.zeros((120, 160), bool)
DRAWN[20:61, 20:61] = True


def share(mask: np.ndarray) -> float:
    return float(((mask == 1) & DRAWN).sum() / ((mask == 1) | DRAWN).sum())


@pytest.mark.parametrize("kind", ["polygon", "oriented_rectangle", "rotation", "quadrilateral"])
def test_four_corners_are_a_polygon(kind: str, scene: tuple, tmp_path: Path) -> None:
    path = labelme(tmp_path / "a.json", ("disc", kind, SQUARE))
    assert share(as_mask(path, scene[0], ["disc"])) == 1


def test_a_rectangle_of_four_corners_is_one_of_two(scene: tuple, tmp_path: Path) -> None:
    four = labelme(tmp_path / "four.json", ("disc", "rectangle", [[45, 25], [115, 25], [115, 95],
                                                                  [45, 95]]))  # fmt: skip
    two = labelme(tmp_path / "two.json", ("disc", "rectangle", [[45, 25], [115, 95]]))
    both = [as_mask(path, scene[0], ["disc"]) for path in (four, two)]
    assert np.array_equal(*both)
    assert both[0].any()


@pytest.mark.parametrize("corner", [(20, 20), (-10, 20), (150, 110)])
def test_a_mask_in_a_shape_is_drawn_at_its_corner(
    corner: tuple[int, int], scene: tuple, tmp_path: Path
) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.ones((41, 41), bool)).save(buffer, "PNG")
    x, y = corner
    shape = {"label": "disc", "shape_type": "mask", "points": [[x, y], [x + 40, y + 40]],
             "mask": base64.b64encode(buffer.getvalue()).decode()}  # fmt: skip
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"shapes": [shape]}))
    expected = np.zeros((120, 160), bool)
    expected[max(0, y) : y + 41, max(0, x) : x + 41] = True
    assert np.array_equal(as_mask(path, scene[0], ["disc"]) == 1, expected)
    assert marked_labels(path) == ["disc"]


DEGENERATE = {
    "no points": ("polygon", []),
    "two points": ("polygon", [[1, 1], [9, 9]]),
    "no area": ("polygon", [[1, 1], [9, 9], [5, 5]]),
    "outside": ("polygon", [[900, 900], [950, 900], [950, 950]]),
    "circle of a point": ("circle", [[5, 5]]),
}


@pytest.mark.parametrize("case", DEGENERATE)
def test_a_shape_that_marks_nothing_does_not_cost_the_file(
    case: str, scene: tuple, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kind, points = DEGENERATE[case]
    path = labelme(tmp_path / "a.json", ("disc", "polygon", SQUARE), ("disc", kind, points))
    with caplog.at_level(logging.WARNING):
        assert share(as_mask(path, scene[0], ["disc"])) == 1
    assert f"shape 2 of {path}" in caplog.text
    alone = labelme(tmp_path / "b.json", ("disc", kind, points))
    with pytest.raises(InputError, match=r"b.json marks nothing"):
        as_mask(alone, scene[0], ["disc"])


def test_shapes_of_other_labels_may_be_anything(scene: tuple, tmp_path: Path) -> None:
    path = labelme(tmp_path / "a.json", ("disc", "polygon", SQUARE), ("dog", "cube", []))
    assert share(as_mask(path, scene[0], ["disc"])) == 1


@pytest.mark.parametrize("label", ["disc ", "Disc", " DISC"])
def test_labels_that_differ_by_case_or_blanks_are_the_class(
    label: str, scene: tuple, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = labelme(tmp_path / "a.json", (label, "polygon", SQUARE))
    with caplog.at_level(logging.WARNING):
        assert share(as_mask(path, scene[0], ["disc"])) == 1
    assert ("taken as disc" in caplog.text) == (label.strip() != "disc")


@pytest.mark.parametrize(
    "content",
    [
        {"shapes": None},
        {"shapes": ["polygon"]},
        {"shapes": [{"label": "disc", "points": None}]},
        {"shapes": [{"label": "disc", "points": [["1", "2"], ["3", "4"], ["5", "6"]]}]},
        {"shapes": [{"label": "disc", "points": [[float("nan"), 2], [3, 4], [5, 6]]}]},
        {"shapes": [{"label": "disc", "points": [[1], [2], [3]]}]},
        {"shapes": [{"label": "disc", "shape_type": "mask", "points": [[1, 1]], "mask": "?"}]},
        {"polygons": None},
        {"polygons": [None]},
        {"clicks": [{"class": "disc"}]},
        {"clicks": [{"points": ["x", "y"], "class": 1}]},
        {"features": {}},
        {"features": [{"geometry": {"type": "Point", "coordinates": [1, 2]}}]},
        {"annotations": [1], "images": [{"id": 1}]},
        {"annotations": [{"image_id": 1}], "images": [{"id": 1}], "categories": [{}]},
        {"shapes": [{"label": "disc", "shape_type": [], "points": [[1, 1]]}]},
        {"clicks": [{"points": [10**400, 1], "class": 1}]},
        {"features": [{"geometry": 0.5}]},
        {"features": [{"properties": [1], "geometry": {}}]},
        {"features": [{"geometry": {"type": "MultiPolygon", "coordinates": [0.5]}}]},
        {"annotations": [], "images": [{"id": 1}], "categories": [{"id": math.inf, "name": "x"}]},
        {
            "annotations": [{"image_id": 1, "category_id": [1], "segmentation": []}],
            "images": [{"id": 1}],
            "categories": [{"id": 1, "name": "disc"}],
        },
        {
            "annotations": [
                {
                    "image_id": 1,
                    "category_id": 1,
                    "segmentation": {"size": [math.inf, 1], "counts": [1]},
                }
            ],
            "images": [{"id": 1}],
            "categories": [{"id": 1, "name": "disc"}],
        },
    ],
)
def test_damaged_files_of_marks_are_named(content: dict, scene: tuple, tmp_path: Path) -> None:
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"damaged\.json"):
        as_mask(path, scene[0], ["disc"])


@pytest.mark.parametrize(
    ("image", "segmentation", "words"),
    [
        ({"width": 320, "height": 240}, [[1, 1, 50, 1, 50, 50]], "drawn on an image of 320x240"),
        (
            {},
            {"size": [240, 320], "counts": [0, 76800]},
            "run lengths of 320x240 pixels, the image",
        ),
        ({}, {"size": [10**9, 10**9], "counts": [0, 10**18]}, "run lengths of 1000000000x"),
        ({}, {"size": [120, 160], "counts": [10**30]}, "do not fill 160x120"),
        ({}, {"size": [120, 160], "counts": [19201, -1]}, "do not fill 160x120"),
    ],
)
def test_coco_of_another_size_is_refused(
    image: dict, segmentation: object, words: str, scene: tuple, tmp_path: Path
) -> None:
    content = {
        "images": [{"id": 1, "file_name": "a.png", **image}],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": [{"image_id": 1, "category_id": 1, "segmentation": segmentation}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=words):
        as_mask(tmp_path / "coco.json", scene[0], ["disc"])
    with pytest.raises(InputError, match="do not fill"):
        from_run_lengths([0, 4], -2, -2)


def test_three_numbers_and_a_byte_order_mark_do_no_harm(scene: tuple, tmp_path: Path) -> None:
    path = labelme(tmp_path / "a.json", ("disc", "polygon", [[*point, 1] for point in SQUARE]))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert share(as_mask(path, scene[0], ["disc"])) == 1


@pytest.mark.parametrize("name", ["yolo", "geojson", "coco", "labelme"])
def test_what_is_written_is_read_again(name: str, tmp_path: Path) -> None:
    """Every format's file is marks of the picture that it was written of; with two classes."""
    mask = np.zeros((120, 160), np.uint8)
    mask[20:61, 20:61], mask[80:100, 100:150] = 1, 2
    image = np.zeros((120, 160, 3), np.uint8)
    photo = tmp_path / "photo.png"
    Image.fromarray(image).save(photo)
    named = Named(photo, mask, ("disc", "bar"), {"disc": 0.9, "bar": 0.8})
    WRITERS[name](tmp_path, named)
    if name == "coco":
        join_coco(tmp_path)
    path = {"yolo": "labels/photo.txt", "geojson": "photo.geojson", "coco": "coco.json",
            "labelme": "photo.json"}[name]  # fmt: skip
    assert marked_labels(tmp_path / path) == ["disc", "bar"]
    found = as_mask(tmp_path / path, image, ["disc", "bar"], "it", photo)
    for class_id in (1, 2):
        inside, wanted = found == class_id, mask == class_id
        assert (inside & wanted).sum() / (inside | wanted).sum() > 0.95


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_are_compressed_without_loss(seed: int) -> None:
    part = np.random.default_rng(seed).random((37, 23)) < 0.3 * seed
    counts = run_lengths(part)
    assert expanded(compressed(counts)) == counts
    assert np.array_equal(from_run_lengths(counts, 37, 23), part)
    with pytest.raises(InputError, match="do not fill"):
        from_run_lengths([*counts, 1], 37, 23)


def test_compressed_run_lengths_are_those_of_cocos_own_tools() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    part = np.random.default_rng(1).random((61, 47)) < 0.4
    own = compressed(run_lengths(part))
    assert coco.encode(np.asfortranarray(part.astype(np.uint8)))["counts"].decode() == own


@pytest.mark.parametrize("sides", [(120, 160), (120.0, 160.0), ("120", "160")])
def test_sides_are_numbers_however_they_are_written(
    sides: tuple, scene: tuple, tmp_path: Path
) -> None:
    path = labelme(tmp_path / "a.json", ("disc", "polygon", SQUARE))
    content = json.loads(path.read_text()) | {"imageHeight": sides[0], "imageWidth": sides[1]}
    path.write_text(json.dumps(content))
    assert share(as_mask(path, scene[0], ["disc"])) == 1
