"""Pascal-5i: folds, the area rule, the removal of novel classes, and broken trees."""

from pathlib import Path

import numpy as np
import pytest

from svfseg.config import DataConfig
from svfseg.data import base_split, build_splits, draw_test_list, novel_split, pascal5i
from svfseg.data.pascal import CLASSES, FOLDS, verify
from tests.data.voc_tree import rectangle, voc_tree, write_mask


def test_folds_are_contiguous_and_cover_every_class() -> None:
    assert FOLDS[0] == (1, 2, 3, 4, 5)
    assert FOLDS[2] == (11, 12, 13, 14, 15)
    assert sorted(c for fold in FOLDS for c in fold) == list(range(1, 21))
    assert CLASSES[14] == "person"


def test_area_rule_at_its_edge(tmp_path: Path) -> None:
    root = voc_tree(
        tmp_path,
        {"below": rectangle(1, 2047), "at": rectangle(1, 2048), "other": rectangle(6, 4000)},
    )
    index = pascal5i(root, ["val"])
    assert [p.get(1) for p in index.pixels] == [2047, 2048, None]
    split = novel_split(index, 0)
    assert [index.items[i] for i in split.queries] == ["at"]
    assert split.images[1] == (1,)
    assert split.images[2] == ()


def test_base_only_drops_any_novel_pixel_even_tiny_ones(tmp_path: Path) -> None:
    tiny = rectangle(6, 3000)
    tiny[70, 70] = 1  # one pixel of a novel class of fold 0
    root = voc_tree(tmp_path, {"clean": rectangle(6, 3000), "tiny": tiny})
    index = pascal5i(root, ["val"])
    assert base_split(index, 0).queries == (0,)
    assert base_split(index, 0, "all").queries == (0, 1)


def test_queries_class_may_be_tiny_supports_may_not(tmp_path: Path) -> None:
    """A tiny object can be chosen in an image that qualified by another class."""
    both = rectangle(1, 3000)
    both[70:72, 70:72] = 2
    masks = {"both": both, **{f"two{i}": rectangle(2, 3000) for i in range(3)}}
    masks |= {f"one{i}": rectangle(1, 3000) for i in range(2)}
    index = pascal5i(voc_tree(tmp_path, masks), ["val"])
    split = novel_split(index, 0)
    episodes = [e for e in _episodes(split, 400) if e.query == 0]
    assert {e.class_id for e in episodes} == {1, 2}
    assert all(0 not in e.support for e in episodes)
    assert {i for e in episodes if e.class_id == 2 for i in e.support} == {1, 2, 3}


def _episodes(split, count):  # type: ignore[no-untyped-def]
    from svfseg.data import draw_episode

    return [draw_episode(split, 1, 0, i, in_order=True) for i in range(count)]


def test_validation_is_disjoint_and_does_not_depend_on_the_list(tmp_path: Path) -> None:
    masks = {f"im{i:03d}": rectangle(6 + i % 3, 3000) for i in range(60)}
    root = voc_tree(tmp_path, masks)
    config = DataConfig(root=str(root), train_lists=("val",), validation_fraction=0.3)
    train, held_out = build_splits(config)
    assert not set(train.queries) & set(held_out.queries)
    assert len(train.queries) + len(held_out.queries) == 60
    assert 8 < len(held_out.queries) < 28
    (root / "ImageSets/Segmentation/less.txt").write_text("im000\nim007\nim011\nim030\n")
    less = build_splits(DataConfig(root=str(root), train_lists=("less",), validation_fraction=0.3))
    names = {held_out.index.items[i] for i in held_out.queries}
    assert {less[1].index.items[i] for i in less[1].queries} == names & {
        "im000", "im007", "im011", "im030"
    }  # fmt: skip


def test_lists_may_be_files_hold_paths_and_overlap(tmp_path: Path) -> None:
    root = voc_tree(tmp_path / "voc", {"a": rectangle(1, 3000), "b": rectangle(1, 3000)})
    own = tmp_path / "own.txt"
    own.write_text("JPEGImages/b.jpg SegmentationClassAug/b.png\n\n")
    assert pascal5i(root, [str(own)]).items == ("b",)
    assert pascal5i(root, ["val", str(own)]).items == ("a", "b")


def test_counts_are_remembered_until_a_mask_changes(tmp_path: Path) -> None:
    root = voc_tree(tmp_path, {"a": rectangle(1, 3000)})
    assert pascal5i(root, ["val"]).pixels[0] == {1: 3000}
    assert pascal5i(root, ["val"]).pixels[0] == {1: 3000}
    write_mask(root / "SegmentationClassAug" / "a.png", rectangle(2, 2500, (90, 100)))
    assert pascal5i(root, ["val"]).pixels[0] == {2: 2500}


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (lambda r: (r / "SegmentationClassAug" / "a.png").unlink(), "1 of 2 masks are missing"),
        (lambda r: (r / "SegmentationClassAug" / "a.png").write_text("x"), "cannot be used, first"),
        (lambda r: (r / "ImageSets/Segmentation/val.txt").write_text(""), "lists no images"),
        (lambda r: (r / "ImageSets/Segmentation/val.txt").rename(r / "v"), "no image list val"),
    ],
)
def test_broken_trees_are_explained(tmp_path: Path, breaks, message: str) -> None:  # type: ignore[no-untyped-def]
    root = voc_tree(tmp_path, {"a": rectangle(1, 3000), "b": rectangle(1, 3000)})
    breaks(root)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        pascal5i(root, ["val"])


def test_no_tree_no_fold_too_few_images(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="set --data.root"):
        pascal5i(tmp_path / "none", ["val"])
    index = pascal5i(voc_tree(tmp_path, {"a": rectangle(1, 3000)}), ["val"])
    with pytest.raises(ValueError, match="folds 0 to 3"):
        novel_split(index, 4)
    with pytest.raises(ValueError, match=r"too few images.*aeroplane \(1\), bicycle \(0\)"):
        draw_test_list(novel_split(index, 0), 1, 0, 5)


def test_verify_names_every_problem(tmp_path: Path) -> None:
    masks = {name: rectangle(1, 3000) for name in ("good", "gone", "small", "text", "strange")}
    masks["strange"][0, 0] = 77
    root = voc_tree(tmp_path, masks)
    (root / "JPEGImages" / "gone.jpg").unlink()
    write_mask(root / "SegmentationClassAug" / "small.png", np.zeros((4, 4)))
    (root / "SegmentationClassAug" / "text.png").write_text("no mask")
    report = verify(root, "val")
    assert (report.images, report.test) == (5, (1, 0, 0, 0))
    assert report.classes["aeroplane"] == 1
    problems = "\n".join(report.problems)
    for part in ("gone.jpg", "small: the image is 100x80, its mask 4x4", "text.png", "ids [77]"):
        assert part in problems


@pytest.mark.shared
def test_counts_of_the_true_benchmark(voc: Path) -> None:
    """Images of the complete val list by fold, as published."""
    index = pascal5i(voc, ["val"])
    assert len(index.items) == 1449
    assert [len(novel_split(index, f).queries) for f in range(4)] == [364, 445, 592, 336]


@pytest.mark.shared
def test_reduced_training_set_is_disjoint_from_the_test(voc: Path) -> None:
    """Both lists without novel pixels: other images and other classes than the fold's test."""
    index = pascal5i(voc, ["trainaug_subset", "val"])
    for fold in range(4):
        test = {index.items[i] for i in novel_split(index, fold).queries}
        train = base_split(index, fold)
        assert not test & {index.items[i] for i in train.queries}
        assert not set(train.classes) & set(FOLDS[fold])
        assert not any(set(index.pixels[i]) & set(FOLDS[fold]) for i in train.queries)
