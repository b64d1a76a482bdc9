"""Images, masks, the folder data set and the embedded demonstration."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svfseg.data import base_split, folder, novel_split, stickers
from svfseg.data.images import check_same_size, overlay, read_image
from svfseg.data.index import read_list
from svfseg.data.masks import read_binary_mask, read_mask
from tests.data.voc_tree import write_image, write_mask


def test_masks_keep_their_ids(tmp_path: Path) -> None:
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_mask(tmp_path / "palette.png", ids)
    Image.fromarray(ids).save(tmp_path / "grey.png")
    for name in ("palette", "grey"):
        assert (read_mask(tmp_path / f"{name}.png") == ids).all()
    Image.fromarray(ids > 100).save(tmp_path / "bits.png")
    assert (read_mask(tmp_path / "bits.png") == (ids > 100)).all()


def test_masks_without_ids_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "colour.png")
    Image.new("RGBA", (4, 4), "red").save(tmp_path / "alpha.png")
    Image.fromarray(np.full((4, 4), 300, np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "text.png").write_text("hello")
    for name, message in (
        ("colour", "it has colours"),
        ("alpha", "it has colours"),
        ("deep", "16 or 32 bits"),
        ("text", "is not an image"),
        ("none", "no image at"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            read_mask(tmp_path / f"{name}.png")


def test_truncated_images_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", np.zeros((50, 50)))
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="damaged image"):
        read_image(tmp_path / "half.jpg")
    with pytest.raises(ValueError, match="is a folder"):
        read_image(tmp_path)
    Image.fromarray(np.full((4, 4), 30000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="scale it to 8 bits"):
        read_image(tmp_path / "deep.png")


def test_binary_masks_of_users(tmp_path: Path) -> None:
    path = tmp_path / "m.png"

    def saved(*values: int) -> Path:
        Image.fromarray(np.array([values], np.uint8)).save(path)
        return path

    assert read_binary_mask(saved(0, 255, 255)).tolist() == [[0, 1, 1]]
    assert read_binary_mask(saved(0, 1, 0)).tolist() == [[0, 1, 0]]
    assert read_binary_mask(saved(0, 7, 255)).tolist() == [[0, 1, 0]]  # 255 is ignored beside an id
    assert read_binary_mask(saved(3, 7, 0), 3).tolist() == [[1, 0, 0]]
    for values, class_id, message in (
        ((0, 0), None, "is empty: mark the class"),
        ((3, 7), None, "say which one is the class"),
        ((3, 7), 5, "has no pixel of class 5"),
    ):
        with pytest.raises(ValueError, match=message):
            read_binary_mask(saved(*values), class_id)


def test_overlay_tints_inside_only() -> None:
    image = np.full((60, 60, 3), 100, np.uint8)
    mask = np.zeros((60, 60), np.uint8)
    mask[20:40, 20:40] = 1
    tinted = overlay(image, mask)
    assert (tinted[:15] == 100).all()
    assert (tinted[19, 20:40] == 255).all()
    assert (tinted[mask == 1] != 100).any(axis=-1).all()
    with pytest.raises(ValueError, match=r"it: the image is 60x60, its mask 5x4"):
        check_same_size(image, np.zeros((4, 5), np.uint8), "it")


def folder_of(root: Path, classes: int = 5, each: int = 3) -> Path:
    for c in range(1, classes + 1):
        for i in range(each):
            ids = np.zeros((40, 48), np.uint8)
            ids[8:30, 10:40] = c
            write_mask(root / "masks" / f"c{c}_{i}.png", ids)
            write_image(root / "images" / f"c{c}_{i}.jpg", ids, i)
    (root / "classes.txt").write_text("".join(f"class {c}\n" for c in range(1, classes + 1)))
    return root


def test_folder(tmp_path: Path) -> None:
    index = folder(folder_of(tmp_path))
    assert index.classes[:2] == ("class 1", "class 2")
    assert index.folds == ((1,), (2,), (3,), (4, 5))
    assert len(index.items) == 15
    sample = index.load(0)
    assert sample.image.shape == (40, 48, 3)
    assert sample.mask.max() == 1
    assert len(novel_split(index, 3).queries) == 6
    assert len(base_split(index, 3).queries) == 9


def test_folder_problems_are_reported_together(tmp_path: Path) -> None:
    root = folder_of(tmp_path)
    (root / "masks" / "c1_0.png").unlink()
    (root / "images" / "c2_0.jpg").write_text("no image")
    write_mask(root / "masks" / "c3_0.png", np.zeros((4, 4)))
    strange = np.zeros((40, 48), np.uint8)
    strange[0, 0] = 9
    write_mask(root / "masks" / "c4_0.png", strange)
    with pytest.raises(ValueError, match="4 files in") as caught:
        folder(root)
    for part in (
        "c1_0.png",
        "c2_0.jpg",
        "c3_0.jpg: the image is 48x40, its mask 4x4",
        "c4_0.png holds ids [9]",
    ):
        assert part in str(caught.value)


def test_folder_needs_its_parts(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no classes.txt"):
        folder(tmp_path)
    (tmp_path / "classes.txt").write_text("one\n")
    with pytest.raises(ValueError, match="at least 2"):
        folder(tmp_path)
    (tmp_path / "classes.txt").write_text("one\ntwo\n")
    with pytest.raises(FileNotFoundError, match="no images in"):
        folder(tmp_path)


def test_stickers_are_deterministic_and_exact() -> None:
    index = stickers(0, 12, "train")
    again = stickers(0, 12, "train")
    other = stickers(1, 12, "train")
    test = stickers(0, 12, "test")
    assert len(index.classes) == 20
    assert [len(fold) for fold in index.folds] == [5] * 4
    for i in range(12):
        sample = index.load(i)
        assert sample.image.shape == (256, 256, 3)
        assert sample.mask.shape == (256, 256)
        assert set(np.unique(sample.mask)) <= set(range(21))
        assert (again.load(i).image == sample.image).all()
        assert (again.load(i).mask == sample.mask).all()
        assert index.pixels[i] == {
            int(c): int((sample.mask == c).sum()) for c in np.unique(sample.mask) if c
        }
    assert any((other.load(i).image != index.load(i).image).any() for i in range(3))
    assert any((test.load(i).image != index.load(i).image).any() for i in range(3))
    with pytest.raises(ValueError, match="at least 1 image"):
        stickers(0, 0, "train")


def test_stickers_leave_most_scenes_without_a_novel_class() -> None:
    index = stickers(0, 60, "train")
    for fold in range(4):
        assert len(base_split(index, fold).queries) >= 30
        assert len(novel_split(index, fold).queries) >= 5


def test_lists_of_published_code_name_their_images(tmp_path: Path) -> None:
    (tmp_path / "voc.txt").write_text("2007_000001  1\n2007_000002 -1\n2007_000003  0\n")
    assert read_list(tmp_path / "voc.txt") == ["2007_000001", "2007_000003"]
    (tmp_path / "hsnet.txt").write_text("2007_000001__01\n2007_000001__15\n2007_000002__03\n")
    assert read_list(tmp_path / "hsnet.txt") == ["2007_000001", "2007_000002"]
    (tmp_path / "plain.txt").write_text("JPEGImages/a.jpg SegmentationClass/a.png\nb\n")
    assert read_list(tmp_path / "plain.txt") == ["a", "b"]
