"""Picture files of strangers: what is opened, what is refused, and what is said of it."""

import contextlib
import io
import logging
import os
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svfseg.data.images import orientation_of, read_image, rgb_of, turned
from svfseg.data.opening import (
    MAX_PIXELS_VARIABLE,
    is_georeferenced,
    open_picture,
    page_count,
)
from svfseg.errors import InputError, MissingFileError

HEIGHT, WIDTH = 24, 40


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def deep_png(path: Path, channels: int) -> Path:
    """A PNG of 16 bits a channel, which Pillow cannot write."""
    import zlib

    values = (picture()[..., :1].astype(">u2") * 16).repeat(channels, axis=2)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    kind = {2: 4, 3: 2, 4: 6}[channels]

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, kind, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
                     + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))  # fmt: skip
    return path


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colours_of_16_bits_are_not_cut_to_their_upper_byte(tmp_path: Path, channels: int) -> None:
    with pytest.raises(InputError, match="deep.png has 16 bits per channel"):
        read_image(deep_png(tmp_path / "deep.png", channels))


@pytest.mark.parametrize("planar", [1, 2])
def test_tiff_of_16_bits_is_refused(tmp_path: Path, planar: int) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = picture().astype(np.uint16) * 16
    shaped = values.transpose(2, 0, 1) if planar == 2 else values
    tifffile.imwrite(tmp_path / "deep.tif", shaped, photometric="rgb", planarconfig=planar)
    with pytest.raises(InputError, match="16 bits per channel"):
        read_image(tmp_path / "deep.tif")


def test_what_a_tiff_holds_is_said(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    bands = np.zeros((HEIGHT, WIDTH, 5), np.uint8)
    tifffile.imwrite(tmp_path / "bands.tif", bands, photometric="minisblack", planarconfig=1)
    tifffile.imwrite(tmp_path / "float.tif", picture().astype(np.float32), photometric="rgb")
    with pytest.raises(InputError, match=r"5 channels \(bands\) of uint8: expected one or three"):
        read_image(tmp_path / "bands.tif")
    with pytest.raises(InputError, match=r"of float32: expected"):
        read_image(tmp_path / "float.tif")


@pytest.mark.parametrize("end", ["tif", "gif", "png", "webp"])
def test_pages_are_counted_and_chosen(
    tmp_path: Path, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"pages.{end}"
    pages = [Image.new("RGB", (WIDTH, HEIGHT), color) for color in ("black", "white", "white")]
    pages[2].putpixel((0, 0), (10, 10, 10))  # else GIF and PNG keep one of two equal frames
    options = {"lossless": True} if end == "webp" else {}
    pages[0].save(path, save_all=True, append_images=pages[1:], **options)
    with caplog.at_level(logging.WARNING):
        assert read_image(path).max() == 0
    assert f"{path} holds 3 pages (frames): the first is read" in caplog.text
    caplog.clear()
    assert read_image(path, page=2).min() == 255
    assert not caplog.records
    with pytest.raises(InputError, match=r"has 3 page\(s\): there is no page 4"):
        read_image(path, page=4)


def test_smaller_copies_of_a_page_are_no_pages(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as file:
        file.write(picture(), photometric="rgb")
        file.write(picture()[::2, ::2].copy(), photometric="rgb", subfiletype=1)
    with open_picture(tmp_path / "pyramid.tif") as image:
        assert image.n_frames == 2
        assert page_count(image, "it") == 1


def test_only_known_formats_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PostScript file, whatever its name, would start another program."""

    def started(*_: object, **__: object) -> None:
        raise AssertionError("another program was started")

    Image.new("RGB", (8, 8)).save(tmp_path / "holiday.jpg", "EPS")
    for name in ("Popen", "run", "check_call"):
        monkeypatch.setattr(f"subprocess.{name}", started)
    with pytest.raises(InputError, match=r"holiday.jpg is not an image .* expected PNG"):
        read_image(tmp_path / "holiday.jpg")
    with pytest.raises(InputError, match="the image is not an image"):
        open_picture((tmp_path / "holiday.jpg").read_bytes())


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(InputError, match="pipe.jpg is not a regular file"):
        read_image(tmp_path / "pipe.jpg")
    with pytest.raises(InputError, match="is a folder"):
        read_image(tmp_path)
    with pytest.raises(MissingFileError, match="no image at"):
        read_image(tmp_path / "none.jpg")
    (tmp_path / "empty.png").touch()
    with pytest.raises(InputError, match="empty.png is empty"):
        read_image(tmp_path / "empty.png")


def test_no_permission_is_the_input_s_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads a folder leaves the file out, and goes on."""
    Image.fromarray(picture()).save(tmp_path / "a.png")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(InputError, match="a.png cannot be read: Permission denied"):
        read_image(tmp_path / "a.png")


def test_the_limit_of_pixels_is_said_and_can_be_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture()).save(path)
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "900")
    with pytest.raises(InputError, match=f"40x24 .* or set {MAX_PIXELS_VARIABLE} to more"):
        read_image(path)
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "960")
    assert read_image(path).shape == (HEIGHT, WIDTH, 3)
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "many")
    with pytest.raises(InputError, match="expected a number of pixels"):
        read_image(path)
    with pytest.raises(InputError, match="at most 900; scale it down$"):
        open_picture(path.read_bytes(), "it", max_pixels=900)


def test_pillow_s_own_limit_stays_for_others(tmp_path: Path) -> None:
    """200 million pixels, of one bit each, are opened without its warning or error."""
    path, limit = tmp_path / "huge.png", Image.MAX_IMAGE_PIXELS
    Image.new("1", (20_000, 10_000)).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match="20000x10000 are 200 million pixels"):
            read_image(path)
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_turned_as_pillow_turns_pictures(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture()).save(tmp_path / "a.png", exif=exif)
    assert orientation_of(tmp_path / "a.png") == orientation
    assert np.array_equal(read_image(tmp_path / "a.png", upright=True),
                          turned(picture(), orientation))  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_are_refused_in_one_way(seed: int) -> None:
    """Cut off, or with bytes changed: an InputError, or some picture, and nothing else."""
    rng = np.random.default_rng(seed)
    buffer = io.BytesIO()
    kind = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF")[seed % 6]
    Image.fromarray(picture(seed)).save(buffer, kind)
    data = bytearray(buffer.getvalue())
    for _ in range(1 + seed % 5):
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
    data = data[: int(rng.integers(1, len(data) + 1))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with (
            contextlib.suppress(InputError),
            open_picture(bytes(data), "it", max_pixels=10**6) as image,
        ):
            assert rgb_of(image, "it", upright=True).dtype == np.uint8


def test_a_place_on_the_map_is_noticed(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    tags = [(33550, "d", 3, (0.5, 0.5, 0.0), True), (33922, "d", 6, (0, 0, 0, 5e5, 54e5, 0), True)]
    tifffile.imwrite(tmp_path / "geo.tif", picture(), photometric="rgb", extratags=tags)
    tifffile.imwrite(tmp_path / "plain.tif", picture(), photometric="rgb")
    for name in ("map.png", "photo.png"):
        Image.fromarray(picture()).save(tmp_path / name)
    (tmp_path / "map.pgw").write_text("0.5\n0\n0\n-0.5\n5e5\n54e5\n")
    placed = {p.name for p in tmp_path.iterdir() if p.suffix != ".pgw" and is_georeferenced(p)}
    assert placed == {"geo.tif", "map.png"}


def test_a_picture_of_somebody_else_is_not_turned() -> None:
    """A fit reads the picture a second time, to turn its mask as the picture is turned."""
    exif, content = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(picture()).save(content, "PNG", exif=exif)
    own = Image.open(content)
    assert rgb_of(own, "it", upright=True).shape == (WIDTH, HEIGHT, 3)
    assert own.size == (WIDTH, HEIGHT)
    assert orientation_of(own) == 6
