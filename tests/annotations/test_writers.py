"""Masks in other programs' formats, read back as those programs read them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from svfseg.annotations.coco_masks import run_lengths
from svfseg.annotations.things import count_specks, opened, things
from svfseg.annotations.writers import (
    ANSWER_WRITERS,
    WRITERS,
    Named,
    join_coco,
    palette,
)


@pytest.fixture
def named() -> Named:
    mask = np.zeros((60, 90), np.uint8)
    mask[5:30, 10:40] = 1
    mask[12:20, 20:30] = 0  # a hole
    mask[40:55, 50:80] = 1
    mask[45:58, 5:25] = 2
    mask[0, 80:90] = 2  # a speck
    return Named(Path("some/where/photo.jpg"), mask, ("crack", "hole"), {"crack": 0.9, "hole": 0.4})


def painted(rings: list, shape: tuple[int, int]) -> np.ndarray:
    canvas = Image.new("L", shape[::-1])
    for number, ring in enumerate(rings):
        # a pixel belongs to the ring if its middle does
        points = [(x - 0.5, y - 0.5) for x, y in ring]
        ImageDraw.Draw(canvas).polygon(points, fill=0 if number else 1)
    return np.asarray(canvas)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_things_are_connected_parts_with_outlines_and_holes(named: Named) -> None:
    found = things(named.mask)
    assert [(thing.class_id, len(thing.holes)) for thing in found] == [(1, 1), (1, 0), (2, 0)]
    for thing in found:
        whole = np.zeros(named.mask.shape, bool)
        (left, top), (rows, columns) = thing.corner, thing.part.shape
        whole[top : top + rows, left : left + columns] = thing.part
        assert iou(painted([thing.outer, *thing.holes], whole.shape) == 1, whole) > 0.85
        assert iou(painted([opened(thing.outer, thing.holes)], whole.shape) == 1, whole) > 0.85
        assert thing.outer.min() >= 0
        assert (thing.outer.max(axis=0) <= (90, 60)).all()


@given(st.integers(0, 2**31))
def test_run_lengths_are_cocos(seed: int) -> None:
    part = np.random.default_rng(seed).random((7, 5)) < 0.5
    counts = run_lengths(part)
    packed = coco_masks.frPyObjects({"size": [7, 5], "counts": counts}, 7, 5)
    assert np.array_equal(coco_masks.decode(packed), part)


def test_png_keeps_ids_and_shows_colours(named: Named, tmp_path: Path) -> None:
    WRITERS["png"](tmp_path, named)
    with Image.open(tmp_path / "photo.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), named.mask)
    single = replace(named, mask=(named.mask == 1).astype(np.uint8), classes=("crack",))
    WRITERS["png"](tmp_path, single)
    with Image.open(tmp_path / "photo.png") as image:
        assert image.mode == "L"
        assert set(np.unique(image)) == {0, 255}
    assert palette(2) == [(0, 0, 0), (128, 0, 0), (0, 128, 0)]


def test_probabilities_are_grey_images(named: Named, tmp_path: Path) -> None:
    """One class in one folder; of several each has its own; a drawn mask has none."""
    shares = np.linspace(0, 1, named.mask.size * 2).reshape(2, *named.mask.shape)
    both = replace(named, probabilities=shares.astype(np.float16))
    ANSWER_WRITERS["probability"](tmp_path, both)
    single = replace(both, classes=("crack",), probabilities=both.probabilities[:1])
    ANSWER_WRITERS["probability"](tmp_path, single)
    for path, truth in (("1/photo", shares[0]), ("2/photo", shares[1]), ("photo", shares[0])):
        with Image.open(tmp_path / f"probability/{path}.png") as image:
            assert image.mode == "L"
            assert np.abs(np.asarray(image) / 255 - truth).max() < 0.003
    with pytest.raises(ValueError, match="no probabilities"):
        ANSWER_WRITERS["probability"](tmp_path, named)


def test_coco_is_read_by_pycocotools(named: Named, tmp_path: Path) -> None:
    WRITERS["coco"](tmp_path, named)
    WRITERS["coco"](tmp_path, replace(named, image=Path("other.png"), mask=named.mask * 0))
    coco = COCO(str(join_coco(tmp_path)))
    assert len(coco.imgs) == 2
    assert len(coco.anns) == 3
    again = np.zeros_like(named.mask)
    for annotation in coco.anns.values():
        part = coco.annToMask(annotation)
        assert annotation["area"] == part.sum()
        left, top, width, height = annotation["bbox"]
        assert part[top : top + height, left : left + width].sum() == part.sum()
        again[part == 1] = annotation["category_id"]
    expected = named.mask.copy()
    expected[0] = 0  # the speck
    assert np.array_equal(again, expected)
    assert [c["name"] for c in coco.dataset["categories"]] == ["crack", "hole"]


def test_yolo_labelme_and_geojson_name_the_same_things(named: Named, tmp_path: Path) -> None:
    for name in ("yolo", "labelme", "geojson"):
        WRITERS[name](tmp_path, named)
    lines = (tmp_path / "labels" / "photo.txt").read_text().split("\n")[:-1]
    assert [line.split()[0] for line in lines] == ["0", "0", "1"]
    values = np.array(lines[1].split()[1:], float).reshape(-1, 2) * (90, 60)
    assert iou(painted([values], (60, 90))[40:55, 50:80] == 1, things(named.mask)[1].part) > 0.85
    assert (tmp_path / "labels" / "classes.txt").read_text() == "crack\nhole\n"
    labelme = json.loads((tmp_path / "photo.json").read_text())
    assert [shape["label"] for shape in labelme["shapes"]] == ["crack", "crack", "hole"]
    assert (labelme["imageHeight"], labelme["imageWidth"]) == (60, 90)
    geo = json.loads((tmp_path / "photo.geojson").read_text())
    assert [f["properties"]["class"] for f in geo["features"]] == ["crack", "crack", "hole"]
    first = geo["features"][0]["geometry"]["coordinates"]
    assert len(first) == 2
    assert all(ring[0] == ring[-1] for ring in first)


@pytest.mark.parametrize("kind", ["yolo", "labelme"])
@pytest.mark.parametrize("holes", [1, 2, 5])
def test_outlines_are_cut_open_to_their_holes(kind: str, holes: int, tmp_path: Path) -> None:
    rows, columns = np.mgrid[:200, :240]
    mask = ((rows - 100) ** 2 + (columns - 120) ** 2 < 90**2).astype(np.uint8)
    for number in range(holes):
        turn = 2 * np.pi * number / holes
        y, x = 100 + 50 * np.sin(turn), 120 + 50 * np.cos(turn)
        mask[(rows - y) ** 2 + (columns - x) ** 2 < 18**2] = 0
    WRITERS[kind](tmp_path, Named(Path("ring.jpg"), mask, ("ring",), {"ring": 1.0}))
    if kind == "yolo":
        (line,) = (tmp_path / "labels/ring.txt").read_text().splitlines()
        points = np.array(line.split()[1:], float).reshape(-1, 2) * (240, 200)
    else:
        points = np.array(json.loads((tmp_path / "ring.json").read_text())["shapes"][0]["points"])
    assert iou(painted([points], mask.shape) == 1, mask == 1) > 0.97


def test_run_lengths_of_a_box_are_those_of_the_whole() -> None:
    mask = np.zeros((12, 9), bool)
    mask[:, 3:5], mask[2, 6], mask[11, 8] = True, True, True
    for box in (np.s_[:, 3:9], np.s_[:, :]):
        corner = (box[1].start or 0, 0)
        assert run_lengths(mask[box], corner, mask.shape) == run_lengths(mask)
    assert run_lengths(np.zeros((3, 2), bool)) == [6]
    assert run_lengths(np.ones((3, 2), bool)) == [0, 6]


def test_specks_are_counted() -> None:
    mask = np.zeros((60, 60), np.uint8)
    mask[5:30, 5:30] = 1
    for at in range(8):
        mask[40:43, 5 + 6 * at : 8 + 6 * at] = 1
    assert len(things(mask)) == 1
    assert count_specks(mask) == 8


def test_many_things_take_little_more_time_than_numbering_them() -> None:
    """Each in its own box: not a whole picture for each."""
    mask = np.zeros((1000, 1000), np.uint8)
    rows, columns = np.mgrid[:1000, :1000]
    mask[(rows % 50 - 25) ** 2 + (columns % 50 - 25) ** 2 < 12**2] = 1
    found = things(mask)
    assert len(found) == 400
    assert max(thing.part.size for thing in found) <= 25**2
