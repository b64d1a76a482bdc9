"""Masks as other programs save them: soft, blurred, inverted, transparent, turned."""

import io
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from svfseg.annotations.inputs import as_image, as_mask
from svfseg.data.masks import one_class, read_mask
from svfseg.errors import InputError

SIZE = (120, 90)


def disc() -> Image.Image:
    """White on black, (90, 120), hard edges."""
    image = Image.new("L", SIZE)
    ImageDraw.Draw(image).ellipse((30, 20, 80, 70), fill=255)
    return image


def truth() -> np.ndarray:
    return np.asarray(disc()) > 0


def read(path: Path, classes: tuple[str, ...] = ("disc",)) -> np.ndarray:
    return as_mask(path, np.zeros((SIZE[1], SIZE[0], 3), np.uint8), classes)


def iou(found: np.ndarray, wanted: np.ndarray) -> float:
    return float((found & wanted).sum() / (found | wanted).sum())


def blurred(kind: str) -> Image.Image:
    large = disc().resize((4 * SIZE[0], 4 * SIZE[1]), Image.Resampling.NEAREST)
    if kind == "brush":
        return disc().filter(ImageFilter.GaussianBlur(3))
    return large.resize(SIZE, getattr(Image.Resampling, kind.upper()))


@pytest.mark.parametrize("kind", ["bilinear", "lanczos", "box", "brush"])
@pytest.mark.parametrize("way", ["file", "picture", "array"])
def test_soft_edges_are_cut_in_the_middle(
    tmp_path: Path, kind: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    soft = blurred(kind)
    soft.save(tmp_path / "soft.png")
    source = {"file": tmp_path / "soft.png", "picture": soft, "array": np.asarray(soft)}[way]
    with caplog.at_level(logging.WARNING):
        mask = as_mask(source, np.zeros((SIZE[1], SIZE[0], 3), np.uint8), ["disc"], "the mask")
    if len(np.unique(np.asarray(soft))) > 2:  # the box filter meets the edges
        assert "soft edges or blur" in caplog.text
    assert set(np.unique(mask)) == {0, 1}
    assert iou(mask == 1, truth()) > 0.97


@pytest.mark.parametrize("end", ["jpg", "webp", "png"])
def test_blur_of_a_compression_is_cut_in_the_middle(tmp_path: Path, end: str) -> None:
    path = tmp_path / f"mask.{end}"
    disc().save(tmp_path / "mask.jpg", quality=60)
    if end == "png":  # the noise stays in the copy
        Image.open(tmp_path / "mask.jpg").save(path)
    elif end == "webp":
        disc().convert("RGB").save(path, quality=40)
    assert iou(read(path) == 1, truth()) > 0.97


def test_ids_cannot_be_read_from_a_blurred_file(tmp_path: Path) -> None:
    disc().save(tmp_path / "mask.jpg")
    for reading in (lambda: read_mask(tmp_path / "mask.jpg"),
                    lambda: read(tmp_path / "mask.jpg", ("a", "b"))):  # fmt: skip
        with pytest.raises(InputError, match="blurs the ids of a mask: .* from where it was drawn"):
            reading()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 7, 255], [0, 1, 255]),
        ([0, 1, 2, 3, 255], [0, 1, 1, 1, 255]),  # parts of one class, and unknown
        ([0, 255], [0, 1]),
        ([0, 40, 80, 120, 160, 200], [0, 1, 1, 1, 1, 1]),  # ids of things
        ([0, *(i for i in range(1, 255) for _ in range(3))], [0] + [1] * 254 * 3),
        ([0, *([255] * 20), 90, 128, 200], [0] + [1] * 20 + [0, 1, 1]),
    ],
)
def test_ids_and_shades_are_told_apart(values: list[int], expected: list[int]) -> None:
    assert one_class(np.array([values], np.uint8), "it").tolist() == [expected]


ROWS, COLUMNS = np.mgrid[:96, :128]
SHAPES = {"disc": (COLUMNS - 60) ** 2 + (ROWS - 50) ** 2 < 30**2,
          "box": (abs(COLUMNS - 64) < 30) & (abs(ROWS - 48) < 20)}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("blur", "peak"), [(1, 60), (3, 100), (6, 150), (6, 220), (7, 255)])
def test_a_halo_of_any_height_is_not_the_class(shape: str, blur: int, peak: int) -> None:
    inside = SHAPES[shape]
    soft = Image.fromarray(255 * inside.astype(np.uint8)).filter(ImageFilter.GaussianBlur(blur))
    values = np.rint(np.asarray(soft) * (peak / 255)).astype(np.uint8)
    found = one_class(values, "it") == 1
    assert (found & inside).sum() / (found | inside).sum() > 0.9


@pytest.mark.parametrize("peak", [20, 128, 200, 255])
def test_a_compressed_mask_of_any_height_has_its_outline(peak: int) -> None:
    inside, content = SHAPES["disc"], io.BytesIO()
    Image.fromarray(peak * inside.astype(np.uint8)).save(content, "JPEG", quality=80)
    found = one_class(np.asarray(Image.open(content)), "it") == 1
    assert (found & inside).sum() / (found | inside).sum() > 0.97


@pytest.mark.parametrize("way", ["apart", "touching", "lines", "bordered"])
def test_numbered_things_stay_whole(way: str) -> None:
    """However many there are: things apart, a tessellation, thin lines, borders that are unknown."""
    cells = (ROWS // 12 * 11 + COLUMNS // 12 + 1).astype(np.uint8)
    edge = (ROWS % 12 == 0) | (COLUMNS % 12 == 0)
    values = {
        "apart": np.where(edge, 0, cells),
        "touching": cells,
        "lines": np.where(ROWS % 6 == 3, ROWS // 6 + 1, 0),
        "bordered": np.where(edge | (ROWS % 12 < 3), 255, cells),
    }[way].astype(np.uint8)
    expected = np.where(values == 255, 255, (values > 0).astype(np.uint8))
    assert np.array_equal(one_class(values, "it"), expected)


@pytest.mark.parametrize("bits", [1, 8])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_white_stored_as_zero_is_undone(tmp_path: Path, bits: int, compression: str) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = truth() if bits == 1 else truth().astype(np.uint8) * 255
    options = {"photometric": "miniswhite", "compression": None if bits == 1 else compression}
    tifffile.imwrite(tmp_path / "mask.tif", values, **options)
    assert iou(read(tmp_path / "mask.tif") == 1, truth()) == 1


@pytest.mark.parametrize("kind", ["black on clear", "white on clear", "grey, opaque", "palette"])
def test_what_is_not_transparent_is_the_mask(tmp_path: Path, kind: str) -> None:
    grey = np.asarray(disc())
    full, none = np.full_like(grey, 255), np.zeros_like(grey)
    channels = {
        "black on clear": [none, none, none, grey],
        "white on clear": [full, full, full, grey],
        "grey, opaque": [grey, full],
        "palette": [none, none, none, grey],
    }[kind]
    image = Image.fromarray(np.dstack(channels), "LA" if len(channels) == 2 else "RGBA")
    if kind == "palette":
        image = image.quantize(2)
        assert image.mode == "P"
    image.save(tmp_path / "mask.png")
    assert iou(read(tmp_path / "mask.png") == 1, truth()) == 1


def test_colours_under_transparency_are_refused(tmp_path: Path) -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 4), np.uint8)
    Image.fromarray(rgba, "RGBA").save(tmp_path / "mask.png")
    with pytest.raises(InputError, match=r"transparency \(alpha\) over several colours"):
        read(tmp_path / "mask.png")


@pytest.mark.parametrize("end", ["tif", "gif"])
def test_a_mask_of_several_pages_is_refused(tmp_path: Path, end: str) -> None:
    path = tmp_path / f"mask.{end}"
    Image.new("L", SIZE).save(path, save_all=True, append_images=[disc(), disc().rotate(9)])
    with pytest.raises(InputError, match="holds 3 pages"):
        read(path)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_drawn_on_the_stored_picture_is_turned_with_it(
    tmp_path: Path, orientation: int, caplog: pytest.LogCaptureFixture
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    disc().convert("RGB").save(tmp_path / "photo.png", exif=exif)
    disc().save(tmp_path / "mask.png")
    image = as_image(tmp_path / "photo.png")
    assert image.shape[:2] == SIZE
    with caplog.at_level(logging.WARNING):
        mask = as_mask(tmp_path / "mask.png", image, ["disc"], "it", tmp_path / "photo.png")
    assert np.array_equal(mask == 1, image[..., 0] > 0)
    assert "it was turned as its image is" in caplog.text
    with pytest.raises(InputError, match="both must be one size"):
        as_mask(tmp_path / "mask.png", image, ["disc"])
