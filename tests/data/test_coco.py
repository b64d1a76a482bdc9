"""COCO-20i from COCO's own layout: ids, folds, visible pixels, the cache, bad files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as tools

from svfseg.cli import main
from svfseg.data.coco import FOLDS, _visible, coco20i, read_instances
from svfseg.data.index import base_split, class_pixels, novel_split

NUMBERS = [n for n in range(1, 91) if n not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]


def box(x: int, y: int, width: int, height: int) -> list[list[float]]:
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def tree(root: Path, name: str = "val2017", images: int = 3) -> dict[str, Any]:
    """Images of 60x40: a large person with a small dog on it, a crowd, and nothing."""
    crowd = np.zeros((40, 60), np.uint8, order="F")
    crowd[30:] = 1
    counts: list[int] = []
    flat, value, run = crowd.T.ravel(), 0, 0
    for pixel in flat:
        if pixel == value:
            run += 1
        else:
            counts.append(run)
            value, run = int(pixel), 1
    counts.append(run)
    rows: list[dict[str, Any]] = []
    for i in range(images - 1):
        rows += [
            {"image_id": 10 + i, "category_id": 18, "segmentation": box(20, 10, 10, 10)},
            {"image_id": 10 + i, "category_id": 1, "segmentation": box(5, 5, 40, 20)},
            {"image_id": 10 + i, "category_id": 90, "iscrowd": 1,
             "segmentation": {"size": [40, 60], "counts": counts}},
        ]  # fmt: skip
    content = {
        "images": [
            {"id": 10 + i, "file_name": f"{i:012d}.jpg", "height": 40, "width": 60}
            for i in range(images)
        ],
        "annotations": [{"id": i, **row} for i, row in enumerate(rows)],
        "categories": [{"id": n, "name": f"class {n}"} for n in reversed(NUMBERS)],
    }
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / name).mkdir()
    for i in range(images):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 60, 3), np.uint8)
        Image.fromarray(pixels).save(root / name / f"{i:012d}.jpg")
    (root / "annotations" / f"instances_{name}.json").write_text(json.dumps(content))
    return content


def test_ids_masks_and_pixels(tmp_path: Path) -> None:
    tree(tmp_path)
    index = coco20i(tmp_path, ("val2017",))
    assert len(index.items) == 2  # the image without an annotation is no part of it
    assert index.classes[0] == "class 1"
    assert index.classes[-1] == "class 90"
    image, mask = index.load(0)
    assert image.shape == (40, 60, 3)
    assert mask[15, 25] == 1 + NUMBERS.index(18)  # the small one on top, though listed first
    assert mask[8, 8] == 1
    assert mask[35, 5] == 80
    assert index.pixels[0] == class_pixels(mask)
    assert index.pixels[0][1 + NUMBERS.index(18)] == 100


def test_folds_of_both_conventions(tmp_path: Path) -> None:
    assert FOLDS["interleaved"][0][:3] == (1, 5, 9)
    assert FOLDS["interleaved"][3][-1] == 80
    assert FOLDS["contiguous"][1] == tuple(range(21, 41))
    for folds in FOLDS.values():
        assert sorted(c for fold in folds for c in fold) == list(range(1, 81))
    tree(tmp_path)
    index = coco20i(tmp_path, ("val2017",), "contiguous")
    assert index.novel(0) == tuple(range(1, 21))


def test_the_area_rule_and_novel_images(tmp_path: Path) -> None:
    """800 pixels of person count at 300, 100 of dog do not; base-only drops images with either."""
    from dataclasses import replace

    tree(tmp_path)
    index = replace(coco20i(tmp_path, ("val2017",)), min_pixels=300)
    assert novel_split(index, 0).queries == (0, 1)  # person is 1, in fold 0
    assert novel_split(index, 0).images[1] == (0, 1)
    dog = 1 + NUMBERS.index(18)
    fold = next(f for f in range(4) if dog in FOLDS["interleaved"][f])
    assert novel_split(index, fold).images[dog] == ()
    assert base_split(index, fold).queries == ()  # any pixel of it drops the image
    assert base_split(index, fold, "all").queries == (0, 1)


def test_the_cache_is_used_and_notices_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SVFSEG_CACHE", str(tmp_path / "cache"))
    content = tree(tmp_path)
    first = read_instances(tmp_path, "val2017")
    with monkeypatch.context() as patch:
        patch.setattr("svfseg.data.coco._parse", None)
        second = read_instances(tmp_path, "val2017")
    assert second.names == first.names
    assert second.pixels == first.pixels
    assert all(np.array_equal(first.mask(i), second.mask(i)) for i in range(2))
    (cached,) = (tmp_path / "cache").glob("coco-*.npz")
    cached.write_bytes(cached.read_bytes()[:200])
    assert read_instances(tmp_path, "val2017").pixels == first.pixels  # made anew
    content["annotations"] = content["annotations"][:3]
    path = tmp_path / "annotations" / "instances_val2017.json"
    path.write_text(json.dumps(content))
    assert len(read_instances(tmp_path, "val2017").names) == 1


@given(st.lists(st.tuples(st.integers(1, 4), *(st.integers(0, 14) for _ in range(4))), max_size=7))
@settings(max_examples=60, deadline=None)
def test_visible_pixels_are_those_of_the_painted_mask(boxes: list[tuple[int, ...]]) -> None:
    outlines = []
    for class_id, x, y, width, height in boxes:
        mask = np.zeros((20, 20), np.uint8, order="F")
        mask[y : y + height + 1, x : x + width + 1] = 1
        runs = tools.encode(mask)
        outlines.append((int(tools.area(runs)), class_id, runs))
    outlines.sort(key=lambda outline: -outline[0])
    painted = np.zeros((20, 20), np.uint8)
    for _, class_id, runs in outlines:
        painted[tools.decode(runs).astype(bool)] = class_id
    assert _visible(tools, outlines) == class_pixels(painted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("annotations"), "is not an instances file of COCO"),
        (lambda c: c["categories"].pop(), "has 79 categories"),
        (lambda c: c["annotations"][0].update(image_id=99), "an annotation is of image 99"),
        (lambda c: c["annotations"][0].update(category_id=12), "category 12"),
        (lambda c: c["images"][0].update(height="x"), "is not an instances file of COCO"),
    ],
)
def test_damaged_annotations(tmp_path: Path, capsys: Any, change: Any, message: str) -> None:
    content = tree(tmp_path)
    change(content)
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    assert main(["data", "verify", "coco20i", "--root", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_verify_names_what_is_wrong(tmp_path: Path, capsys: Any) -> None:
    tree(tmp_path)
    words = ["data", "verify", "coco20i", "--root", str(tmp_path)]
    assert main(words) == 0
    assert "val2017" in capsys.readouterr().out
    (tmp_path / "val2017" / f"{0:012d}.jpg").unlink()
    Image.new("RGB", (50, 50)).save(tmp_path / "val2017" / f"{1:012d}.jpg")
    assert main(words) == 2
    told = capsys.readouterr()
    assert "no image at" in told.out
    assert "the image is 50x50, its annotations are for 60x40" in told.out
    assert "2 files are missing" in told.err
    assert main(["data", "verify", "coco20i", "--root", str(tmp_path / "none")]) == 2
    assert "expected COCO's folder as --root" in capsys.readouterr().err


def test_missing_sets_are_named(tmp_path: Path) -> None:
    tree(tmp_path)
    with pytest.raises(FileNotFoundError, match="it holds val2017"):
        coco20i(tmp_path, ("trainaug",))


@pytest.mark.shared
def test_training_and_scoring_on_a_piece_of_coco(coco_mini: Path, tmp_path: Path) -> None:
    """The code paths; 200 images are no benchmark. Most classes have too few images."""
    words = ["--data.name", "coco20i", "--data.root", str(coco_mini), "--data.train-lists",
             "train2017", "--data.test-list", "val2017", "--data.size", "97", "--data.resize-longest",
             "--model.backbone.name", "test_resnet", "--model.backbone.weights", "none",
             "--model.hidden", "8", "--optim.steps", "2", "--optim.batch", "2",
             "--data.validation-fraction", "0.3", "--selection.every", "2",
             "--selection.monitor", "last", "--workers", "0", "--device", "cpu"]  # fmt: skip
    run = ["train", *words, "--out", str(tmp_path / "run")]
    assert main(run) == 2  # and says so
    assert main([*run, "--data.on-small-class", "drop", "--data.scale-range", "0.8", "1.25"]) == 0
    result = tmp_path / "result.json"
    words = ["eval", str(tmp_path / "run"), "--episodes", "4", "--json", str(result)]
    assert main([*words, "--workers", "0"]) == 0
    scores = json.loads(result.read_text())
    assert scores["benchmark"] == "coco20i val2017 interleaved"
    listed = ["data", "episodes", "coco20i", "--root", str(coco_mini), "--test-list", "val2017"]
    assert main([*listed, "--fold", "0", "--count", "2", "--out", str(tmp_path / "e.json")]) == 2
