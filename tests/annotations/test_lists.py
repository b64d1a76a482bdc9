"""Lists of supports as table programs save them, and masks found by their names."""

import logging
import os
from pathlib import Path

import pytest
from PIL import Image

from svfseg.annotations.folders import find_images, find_supports
from svfseg.annotations.names import class_names
from svfseg.data.folder import folder
from svfseg.errors import InputError, MissingFileError


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        Image.new("RGB", (8, 6)).save(tmp_path / f"{name}.jpg")
        Image.new("L", (8, 6), 255).save(tmp_path / f"{name}.png")
    return tmp_path


TABLES = {
    "plain.csv": "a.jpg,a.png\nb.jpg,b.png\n",
    "mark.csv": "\ufeffa.jpg,a.png\nb.jpg,b.png\n",
    "heading.csv": "\ufeffImage,Mask\r\na.jpg,a.png\r\nb.jpg,b.png\r\n",
    "semicolons.csv": "filename;label\na.jpg;a.png\nb.jpg;b.png\n",
    "tabs.tsv": "a.jpg\ta.png\nb.jpg\tb.png\n",
    "tabs.txt": "a.jpg\ta.png\nb.jpg\tb.png\n",
    "commas.txt": "a.jpg, a.png\nb.jpg, b.png\n",
    "blanks.txt": "# mine\na.jpg a.png\n\nb.jpg b.png\n",
    "quotes.csv": '"a.jpg","a.png"\n"b.jpg","b.png"\n',
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_tables_are_read(files: Path, name: str, encoding: str) -> None:
    text = TABLES[name].removeprefix("\ufeff") if encoding == "utf-16" else TABLES[name]
    (files / name).write_bytes(text.encode(encoding))
    images, masks, _ = find_supports([files / name])
    assert [path.name for path in images] == ["a.jpg", "b.jpg"]
    assert [path.name for path in masks if path] == ["a.png", "b.png"]


def test_a_list_is_named_in_every_message(files: Path) -> None:
    (files / "latin.csv").write_bytes("ä.jpg,ä.png\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin.csv is not text in UTF-8"):
        find_supports([files / "latin.csv"])
    (files / "gone.csv").write_text("a.jpg,a.png\nc.jpg,c.png\n")
    with pytest.raises(MissingFileError, match=r"gone.csv names .*c.jpg in its row 2"):
        find_supports([files / "gone.csv"])


def test_columns_keep_their_places(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (files / "other.csv").write_text("mask,image\na.png,a.jpg\n,b.jpg\n")
    images, masks, _ = find_supports([files / "other.csv"])
    assert [path.name for path in images] == ["a.jpg", "b.jpg"]
    assert masks == [files / "a.png", None]
    for row in (",a.png", "a.jpg,,a.png", "a.jpg,a.png,b.png"):
        (files / "odd.csv").write_text(f"b.jpg,b.png\n{row}\n")
        with pytest.raises(InputError, match=r"odd.csv has .* in its row 2: expected an image and"):
            find_supports([files / "odd.csv"])
    (files / "long.csv").write_text(f"a.jpg,a.png\n{'x' * 140_000},\n")
    with pytest.raises(InputError, match=r"long.csv cannot be read \(field larger"):
        find_supports([files / "long.csv"])


def test_files_of_a_row_lie_in_one_place(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mask of the same name in the present folder belongs to something else."""
    (files / "here").mkdir()
    Image.new("L", (8, 6), 1).save(files / "here/a.png")
    (files / "list.csv").write_text("a.jpg,a.png\n")
    monkeypatch.chdir(files / "here")
    images, masks, _ = find_supports([files / "list.csv"])
    assert (images, masks) == ([files / "a.jpg"], [files / "a.png"])


MASKS = ("a.png", "a.PNG", "a.tif", "a.TIFF", "a.bmp", "a.gif", "a_mask.png", "mask_a.png",
         "a.jpg.png", "A.png")  # fmt: skip


@pytest.mark.parametrize("name", MASKS)
def test_masks_are_found_by_their_names(tmp_path: Path, name: str) -> None:
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "images/a.jpg")
    kind = {"tif": "TIFF", "tiff": "TIFF"}.get(name.lower().rsplit(".")[-1])
    Image.new("L", (8, 6), 1).save(tmp_path / "masks" / name, kind)
    _, masks, _ = find_supports([tmp_path])
    assert [path.name for path in masks if path] == [name]
    (tmp_path / "classes.txt").write_text("crack\nleaf\n")
    assert folder(tmp_path).pixels == ({1: 48},)


def test_names_that_were_looked_for_are_said(tmp_path: Path) -> None:
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "images/a.jpg")
    with pytest.raises(
        MissingFileError, match=r"expected a.png, a_mask.png or mask_a.png in masks"
    ):
        find_supports([tmp_path])


def test_pictures_and_masks_side_by_side(files: Path) -> None:
    images, masks, _ = find_supports([files])
    assert [path.name for path in images] == ["a.jpg", "b.jpg"]
    assert [path.name for path in masks if path] == ["a.png", "b.png"]


def test_hidden_files_are_passed_over_and_others_counted_once(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("._a.jpg", ".DS_Store", "Thumbs.db", "a.json", "film.mp4", "list", "old.ppm"):
        (files / name).write_bytes(b"x")
    for name in ("a.png", "b.png"):
        os.remove(files / name)
    with caplog.at_level(logging.WARNING):
        assert [path.name for path in find_images([files])] == ["a.jpg", "b.jpg"]
    assert len(caplog.records) == 1
    assert "left out 3 file(s)" in caplog.text


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no names"),
        ([""], "an empty name"),
        (["  "], "an empty name"),
        (["a\nb"], "a line break"),
        (["ok\ud83d"], "cannot be"),
        (["a", " a"], "two classes are called a"),
    ],
)
def test_wrong_names_of_classes(names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        class_names(names)
