"""Read images as arrays, and draw masks over them."""

import hashlib
import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from svfseg.data.opening import bits_per_channel, open_picture, page_count
from svfseg.errors import InputError
from svfseg.files import write_bytes

logger = logging.getLogger(__name__)

Array = npt.NDArray[np.uint8]
T = TypeVar("T")
_ORIENTATION = 0x0112  # EXIF


def read_image(path: str | Path, upright: bool = False, page: int | None = None) -> Array:
    """Read an RGB image (height, width, 3), uint8.

    Args:
        path: path of the file.
        upright: turn it as its EXIF data says, as viewers do; benchmarks do not.
        page: page of a file of several, from 1; None takes the first, and warns.

    Raises:
        MissingFileError: no such file.
        InputError: not an image, a damaged one, one of more than 8 bits a channel, or without that
            page.
    """
    with open_picture(path, page=page) as image:
        return rgb_of(image, f"{path}", upright, page)


def image_size(path: str | Path) -> tuple[int, int]:
    """Read (height, width) from the header of an image file.

    Raises:
        MissingFileError: no such file.
        InputError: not an image.
    """
    with open_picture(path) as image:
        return image.height, image.width


def rgb_of(image: Image.Image, name: str, upright: bool = False, page: int | None = None) -> Array:
    """Read the pixels of an opened picture, (height, width, 3) uint8.

    Args:
        image: as `svfseg.data.opening.open_picture` or Pillow opened it.
        name: name to use in messages.
        upright: turn it as its EXIF data says.
        page: the page that was asked for; if None, a file of several is warned of.

    Raises:
        InputError: damaged, or of more than 8 bits a channel.
    """
    bits = bits_per_channel(image)
    if bits > 8:
        raise InputError(
            f"{name} has {bits} bits per channel (mode {image.mode}): scale it to 8 bits first"
        )
    pages = page_count(image, name) if page is None else 1
    if pages > 1:
        logger.warning("%s holds %d pages (frames): the first is read", name, pages)
    decoded(image.load, name)  # a PNG says only after its pixels how it is turned
    picture = image
    if upright and orientation_of(image) != 1:  # what need not be turned is not copied
        picture = decoded(lambda: ImageOps.exif_transpose(image), name)
    return decoded(
        lambda: np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB")), name
    )


def write_picture(path: Path, picture: Image.Image, kind: str, quality: int = 90) -> None:
    """Write a picture whole or not at all.

    Pillow takes no notice of a disk that had space for a part of a file, so it writes to memory.

    Args:
        path: path of the file; one that is there is replaced.
        picture: the picture.
        kind: JPEG or PNG.
        quality: how good a JPEG is, to 100.

    Raises:
        OSError: writing failed; what was at the path is still there.
    """
    content = io.BytesIO()
    picture.save(content, kind, quality=quality)
    write_bytes(path, content.getvalue())


def orientation_of(source: object) -> int:
    """Read how a picture is to be turned to be seen upright: EXIF's orientation, 1 to 8.

    Args:
        source: a path or an opened picture; 1 of anything else.
    """
    try:
        if isinstance(source, (str, Path)):
            with open_picture(source) as image:
                return orientation_of(image)
        value = source.getexif().get(_ORIENTATION, 1) if isinstance(source, Image.Image) else 1
    except Exception:  # a damaged head says nothing of it
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def turned(array: Array, orientation: int) -> Array:
    """Turn pixels (height, width, ...) as EXIF's orientation says.

    Args:
        array: pixels as stored.
        orientation: 1 to 8.
    """
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def check_same_size(image: Array, mask: Array, what: str) -> None:
    """Raise InputError unless an image and its mask have one size."""
    if image.shape[:2] != mask.shape[:2]:
        (h, w), (mh, mw) = image.shape[:2], mask.shape[:2]
        raise InputError(f"{what}: the image is {w}x{h}, its mask {mw}x{mh}; both must be one size")


def fingerprint(image: Array) -> str:
    """Hash the pixels of an image, whatever file they came from, to 16 hexadecimal digits."""
    content = hashlib.sha256(str(image.shape).encode())
    content.update(image.tobytes())
    return content.hexdigest()[:16]


def overlay(image: Array, mask: Array, color: tuple[int, int, int] = (255, 64, 32)) -> Array:
    """Lay a mask over an image: tinted inside, a white line around it.

    Args:
        image: (height, width, 3).
        mask: (height, width), non-zero inside.
        color: colour of the tint.
    """
    inside = mask.astype(bool)
    width = max(1, min(mask.shape) // 150)
    edge = inside & ~_eroded(inside, width)
    around = ~inside & ~_eroded(~inside, width)  # white, so that red shows on red
    tinted: npt.NDArray[np.float32] = image.astype(np.float32)
    tinted[inside] = 0.55 * tinted[inside] + 0.45 * np.asarray(color, np.float32)
    tinted[edge] = color
    tinted[around] = 255
    return np.asarray(tinted, np.uint8)


def decoded(decode: Callable[[], T], name: str) -> T:
    """Decode pixels.

    Args:
        decode: does it.
        name: name of the picture, for the message.

    Raises:
        InputError: damaged.
    """
    try:
        return decode()
    except Exception as error:  # decoders fail in many ways on a damaged file
        raise InputError(f"{name} is a damaged image: {error}") from error


def _eroded(mask: npt.NDArray[np.bool_], radius: int) -> npt.NDArray[np.bool_]:
    shrunk = mask
    for _ in range(radius):
        padded = np.pad(shrunk, 1, mode="edge")
        shrunk = (
            shrunk & padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]
        )
    return shrunk
