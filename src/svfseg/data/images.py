"""Read and write images and masks. Masks go through Pillow: they keep their ids."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from svfseg.errors import InputError, MissingFileError

Array = npt.NDArray[np.uint8]
T = TypeVar("T")


def read_image(path: str | Path, upright: bool = False) -> Array:
    """Read an RGB image (height, width, 3), uint8.

    Args:
        path: path of the file.
        upright: turn it as its EXIF data says, as viewers do; benchmarks do not.

    Raises:
        MissingFileError: no such file.
        InputError: not an image, a damaged one, or one of more than 8 bits a channel.
    """
    with _open(path) as image:
        return rgb_of(image, f"{path}", upright)


def image_size(path: str | Path) -> tuple[int, int]:
    """Read (height, width) from the header of an image file.

    Raises:
        MissingFileError: no such file.
        InputError: not an image.
    """
    with _open(path) as image:
        return image.height, image.width


def read_mask(path: str | Path) -> Array:
    """Read a mask of class ids (height, width), uint8: palette, grey, or black and white.

    Raises:
        MissingFileError: no such file.
        InputError: not an image, or one that holds no ids (colour, 16 bits).
    """
    with _open(path) as image:
        return ids_of(image, f"{path}")


def rgb_of(image: Image.Image, name: str, upright: bool = False) -> Array:
    """Read the pixels of an opened picture, (height, width, 3) uint8.

    Args:
        image: as Pillow opened it.
        name: name to use in messages.
        upright: turn it as its EXIF data says.

    Raises:
        InputError: damaged, or of more than 8 bits a channel.
    """
    if image.mode.startswith(("I", "F")):
        raise InputError(
            f"{name} has 16 or 32 bits per pixel (mode {image.mode}): scale it to 8 bits first"
        )
    turned = _decoded(lambda: ImageOps.exif_transpose(image) if upright else image, name)
    return _decoded(lambda: np.asarray(turned.convert("RGB")), name)


def ids_of(image: Image.Image, name: str) -> Array:
    """Read class ids (height, width), uint8, of an opened mask; black and white are 0 and 1.

    Grey in three channels, as painting programs and browsers save it, is grey; so are 16 bits that
    hold no value above 255.

    Args:
        image: as Pillow opened it.
        name: name to use in messages.

    Raises:
        InputError: damaged, or one that holds no ids (colour, larger values, a JPEG).
    """
    if image.format == "JPEG":
        raise InputError(f"{name} is a JPEG, which blurs the ids of a mask: save it as a PNG")
    values: npt.NDArray[Any] = _decoded(lambda: np.asarray(image), name)
    if image.mode in ("RGB", "RGBA") and (values[..., :3] == values[..., :1]).all():
        values = values[..., 0]
    elif image.mode.startswith("I") and values.min() >= 0 and values.max() <= 255:
        pass
    elif image.mode not in ("P", "L", "1"):
        kind = "16 or 32 bits per pixel" if image.mode.startswith(("I", "F")) else "colours"
        raise InputError(
            f"{name} is not a mask of class ids: it has {kind} (mode {image.mode}); save it as "
            "an 8-bit palette or grey PNG whose values are the ids"
        )
    return values.astype(np.uint8)


def read_binary_mask(path: str | Path, class_id: int | None = None) -> Array:
    """Read one class of a mask as 0 and 1, (height, width).

    Args:
        path: a mask of ids, or a black-and-white one (0 and 255).
        class_id: which id is the class; None takes the only one there is. 255 is the class where
            it is the only value beside 0, else it is ignored (background).

    Raises:
        InputError: no pixel of the class, several ids and no ``class_id``, or see `read_mask`.
    """
    mask = read_mask(path)
    ids = [int(v) for v in np.unique(mask) if v != 0]
    if not ids:
        raise InputError(f"{path} is empty: mark the class with any value but 0")
    ids = [i for i in ids if i != 255] or ids
    if class_id is None and len(ids) > 1:
        raise InputError(
            f"{path} holds the classes {ids}: say which one is the class",
            settings=("class_id",),
        )
    wanted = ids[0] if class_id is None else class_id
    if wanted not in ids:
        raise InputError(f"{path} has no pixel of class {wanted}: it holds {ids}")
    chosen: Array = (mask == wanted).astype(np.uint8)
    return chosen


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


def _decoded(decode: Callable[[], T], name: str) -> T:
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


def _open(path: str | Path) -> Any:
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise MissingFileError(f"no image at {path}") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder: expected an image file") from None
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not an image that can be read") from error
    except PermissionError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path} is a damaged image: {error}") from error
