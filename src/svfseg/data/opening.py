"""Open picture files: the one way in for images and masks, from disk or from a request."""

import io
import os
import stat
import threading
from pathlib import Path
from typing import Any

from PIL import Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

from svfseg.errors import InputError, MissingFileError

# Pillow reads more formats, but they are rare, their decoders are often attacked, and one of them
# (EPS) starts another program. JPEG's reader knows the JPEGs of several pictures (MPO) of phones.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
READ = "PNG, JPEG, WebP, BMP, TIFF or GIF"
# Pixels of the largest picture that is opened, unless the environment says otherwise.
MAX_PIXELS = 178_956_970
MAX_PIXELS_VARIABLE = "SVFSEG_MAX_PIXELS"
# TIFF's tags: a smaller copy of another page, bits of each channel, numbers of channels, kind of
# numbers.
_SUBFILE, _BITS, _CHANNELS, _KIND = 254, 258, 277, 339
_PLACE = (33550, 33922, 34735)  # GeoTIFF: size of a pixel, tie points, directory of keys
_KINDS = {1: "uint", 2: "int", 3: "float"}
_LOCK = threading.Lock()  # Pillow's own limit is one for all threads
# Pillow finds only formats whose readers are loaded: this one, TIFF's, and those of its first step.
_LOADED = WebPImagePlugin
Image.preinit()


def open_picture(
    source: str | Path | bytes,
    name: str = "",
    page: int | None = None,
    max_pixels: int | None = None,
) -> Image.Image:
    """Open a picture; its pixels are not decoded yet.

    Args:
        source: path of a file, or the bytes of one.
        name: name to use in messages; by default the path.
        page: number of the page of a file of several, from 1; None takes the first.
        max_pixels: largest number of pixels; by default $SVFSEG_MAX_PIXELS, else that of
            Pillow.

    Raises:
        MissingFileError: no such file.
        InputError: not a regular file, not a picture, a damaged one, one of too many pixels, or one
            without that page.
    """
    name = name or ("the image" if isinstance(source, bytes) else f"{source}")
    if isinstance(source, bytes):
        image = _opened(io.BytesIO(source), name)
    else:
        _check_regular(Path(source), name)
        image = _opened(Path(source), name)
    try:
        _check_size(image, name, max_pixels)
        if page is not None:
            pages = page_count(image, name)
            if not 1 <= page <= pages:
                raise InputError(
                    f"{name} has {pages} page(s): there is no page {page}", settings=("page",)
                )
            image.seek(page - 1)
    except InputError:
        image.close()
        raise
    return image


def _check_size(image: Image.Image, name: str, max_pixels: int | None) -> None:
    limit = pixel_limit() if max_pixels is None else max_pixels
    count = image.width * image.height
    if count <= limit:
        return
    more = "" if max_pixels is not None else (
        f", or set {MAX_PIXELS_VARIABLE} to more, if there is memory for it"
    )  # fmt: skip
    raise InputError(
        f"{name} is too large: {image.width}x{image.height} are {count / 1e6:.3g} million pixels, "
        f"expected at most {limit:,}; scale it down{more}"
    )


def pixel_limit() -> int:
    """Give the largest number of pixels of a local picture.

    Raises:
        InputError: the environment holds no number.
    """
    value = os.environ.get(MAX_PIXELS_VARIABLE, "")
    if not value:
        return MAX_PIXELS
    if not value.isascii() or not value.isdigit() or int(value) < 1:
        raise InputError(f"{MAX_PIXELS_VARIABLE} is {value!r}: expected a number of pixels")
    return int(value)


def page_count(image: Image.Image, name: str) -> int:
    """Count the pages (frames) of an opened picture; smaller copies of the first do not count.

    Raises:
        InputError: damaged.
    """
    try:
        frames = int(getattr(image, "n_frames", 1))
        if frames < 2 or image.format == "MPO":  # a phone's preview, or a second lens
            return 1
        if not isinstance(image, TiffImagePlugin.TiffImageFile):
            return frames
        count = 0
        for number in range(frames):
            image.seek(number)
            count += not int(image.tag_v2.get(_SUBFILE, 0)) & 1
        image.seek(0)
        return max(1, count)
    except Exception as error:  # decoders fail in many ways on a damaged file
        raise InputError(f"{name} is a damaged image: {error}") from error


def bits_per_channel(image: Image.Image) -> int:
    """Read the bits of each channel as stored in the file, or in an array of Pillow.

    Pillow reads colours of 16 bits as 8, by their upper byte: the file's head tells.
    """
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2.get(_BITS, (1,))
        return int(max(bits) if isinstance(bits, tuple) else bits)
    if image.mode.startswith("I;16") or any("16" in text for text in _raw_modes(image)):
        return 16
    return 32 if image.mode in ("I", "F") else 8


def is_inverted(image: Image.Image) -> bool:
    """Whether Pillow turns the stored values over, as white is stored as zero."""
    return isinstance(image, TiffImagePlugin.TiffImageFile) and any(
        text in ("1;I", "1;IR", "L;I", "L;IR", "L;2I", "L;4I") for text in _raw_modes(image)
    )


def is_lossy(image: Image.Image) -> bool:
    """Whether the file's compression changes values: JPEG (in TIFF too), or WebP's lossy kind."""
    if image.format in ("JPEG", "MPO"):
        return True
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return "jpeg" in str(image.info.get("compression", ""))
    if image.format == "WEBP":
        stream = getattr(image, "fp", None)
        if stream is None:
            return False
        place = stream.tell()
        stream.seek(0)
        head = stream.read(64)
        stream.seek(place)
        return b"VP8 " in head
    return False


def is_georeferenced(path: Path) -> bool:
    """Whether a picture knows its place on a map: by GeoTIFF's tags, or a world file beside it."""
    ends = {".tif": ".tfw", ".tiff": ".tfw", ".png": ".pgw", ".jpg": ".jgw", ".jpeg": ".jgw"}
    world = [path.with_suffix(end) for end in (ends.get(path.suffix.lower(), ".wld"), ".wld")]
    if any(each.is_file() for each in world):
        return True
    if path.suffix.lower() not in (".tif", ".tiff"):
        return False
    with open_picture(path) as image:
        return isinstance(image, TiffImagePlugin.TiffImageFile) and any(
            tag in image.tag_v2 for tag in _PLACE
        )


def _raw_modes(image: Image.Image) -> list[str]:
    """How the decoder is told that pixels are stored; empty once they are decoded."""
    texts = []
    for tile in getattr(image, "tile", ()):
        arguments = tile[3]
        for each in arguments if isinstance(arguments, tuple) else (arguments,):
            texts += [each] if isinstance(each, str) else []
    return texts


def _check_regular(path: Path, name: str) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise MissingFileError(f"no image at {name}") from None
    except (OSError, ValueError) as error:  # ValueError of a path with a zero byte
        raise InputError(f"{name} cannot be read: {_reason(error)}") from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{name} is a folder: expected an image file")
    if not stat.S_ISREG(mode):
        raise InputError(f"{name} is not a regular file: expected an image file")


def _opened(source: Path | io.BytesIO, name: str) -> Image.Image:
    try:
        with _LOCK:
            usual, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                return Image.open(source, formats=FORMATS)
            finally:
                Image.MAX_IMAGE_PIXELS = usual
    except UnidentifiedImageError as error:
        raise InputError(f"{name} {_description(source)}") from error
    except PermissionError as error:
        raise InputError(f"{name} cannot be read: {_reason(error)}") from error
    except Exception as error:  # decoders fail in many ways on what only looks like an image
        raise InputError(f"{name} is a damaged image: {error}") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _description(source: Path | io.BytesIO) -> str:
    """What a file holds that is not opened, for a message."""
    try:
        data = source.read_bytes() if isinstance(source, Path) else source.getvalue()
    except OSError as error:
        return f"cannot be read: {_reason(error)}"
    if not data:
        return "is empty: expected an image file"
    if data[:4] in (b"II*\0", b"MM\0*"):
        held = _tiff_content(data)
        if held:
            return f"holds {held}: expected one or three channels of 8 bits"
    return f"is not an image that can be read: expected {READ}"


def _tiff_content(data: bytes) -> str:
    """Channels and numbers of a TIFF, as "5 channels of uint8"; empty where its head is damaged."""
    try:
        stream = io.BytesIO(data)
        tags: Any = TiffImagePlugin.ImageFileDirectory_v2(stream.read(8))
        stream.seek(tags.next)
        tags.load(stream)
        channels = int(tags.get(_CHANNELS, 1))
        bits = tags.get(_BITS, (1,))
        kind = tags.get(_KIND, (1,))
        first = [int(v[0] if isinstance(v, tuple) else v) for v in (bits, kind)]
    except Exception:  # whatever it is, it is no TIFF that tells
        return ""
    plural = "channel" if channels == 1 else "channels (bands)"
    return f"{channels} {plural} of {_KINDS.get(first[1], 'complex')}{first[0]}"
