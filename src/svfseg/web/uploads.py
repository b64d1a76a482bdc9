"""Decode the images and masks of uploads, whose bytes may be anything."""

import base64
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from svfseg.annotations.labelme import check_shapes
from svfseg.annotations.marks import draw_marks
from svfseg.annotations.marks_files import read_marks
from svfseg.data.images import Array, rgb_of
from svfseg.data.masks import ids_of, values_of
from svfseg.data.opening import open_picture, page_count
from svfseg.errors import InputError
from svfseg.files import parse_json
from svfseg.segmenter.resizing import MULTIPLE
from svfseg.segmenter.tiling import count_windows

# A network of the largest size would see less than half a pixel of the shorter side beyond.
MOST_LONGER = 4096
# A network may see an image's pixels this many times: windows of tiles overlap.
SEEN = 4
# Shapes of a file of labelme times pixels of its image: each shape may fill all of it.
DRAWN = 40_000_000_000
# Marks may lie outside of an image, but not further than its longer side this many times.
FAR = 4


@dataclass(frozen=True)
class Sight:
    """How a network sees images.

    Attributes:
        size: longer side to which images or tiles are fitted, pixels.
        tile: whether images are cut into tiles of that side.
        overlap: share that neighbouring tiles have in common.
    """

    size: int
    tile: bool = False
    overlap: float = 0.25

    def check(self, width: int, height: int, max_pixels: int, name: str) -> None:
        """Check that there is something to see of an image, and not too much.

        Args:
            width: width of the image.
            height: height of the image.
            max_pixels: largest number of pixels of an image.
            name: name of the image, for messages.

        Raises:
            InputError: fitted it has no height or width, or it makes very many tiles.
        """
        short, long = sorted((width, height))
        if not self.tile:
            if 2 * self.size * short < long:
                raise InputError(
                    f"{name} is {width}x{height}, of which less than a pixel is left where the "
                    f"longer side is fitted to {self.size}: expected a longer side of at most "
                    f"{2 * self.size} times the shorter one; cut it into pieces, or fit a task "
                    "with tile"
                )
            return
        count = count_windows(height, width, self.size, self.overlap)
        # a window of a thin image is filled up
        seen = count * self.size * min(self.size, max(short, MULTIPLE))
        most = SEEN * max(max_pixels, self.size**2)
        if seen > most:
            raise InputError(
                f"{name} is {width}x{height}, which makes {count:,} tiles of {seen / 1e6:.3g} "
                f"million pixels in all: expected at most {most / 1e6:.3g} million; scale it down, "
                "or fit a task with a larger size or without tile"
            )


def decode_image(
    data: bytes, max_pixels: int, name: str = "the image", sight: Sight | None = None
) -> Array:
    """Decode an image, upright as its EXIF data says.

    Args:
        data: the bytes of the file.
        max_pixels: largest number of pixels in its header; a larger image is not decoded.
        name: name of the image, for messages.
        sight: how a network will see it; what it cannot see is not decoded. None if that is not
            known yet.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        InputError: not an image, damaged, too large, too long, or of more than 8 bits per channel.
    """
    with open_picture(data, name, max_pixels=max_pixels) as image:
        _check_image(image, max_pixels, name, sight)
        return rgb_of(image, name, upright=True)


def read_sides(
    data: bytes, max_pixels: int, name: str = "the image", sight: Sight | None = None
) -> tuple[int, int]:
    """Read the width and height of an image or mask from its header.

    Args:
        data: the bytes of the file.
        max_pixels: see `decode_image`.
        name: name of the image, for messages.
        sight: see `decode_image`.

    Raises:
        InputError: not an image, of several pages, too large or too long.
    """
    with open_picture(data, name, max_pixels=max_pixels) as image:
        _check_image(image, max_pixels, name, sight)
        return image.width, image.height


def decode_mask(
    data: bytes, max_pixels: int, name: str = "the mask", blurred: bool = False
) -> Array:
    """Decode a mask.

    Args:
        data: the bytes of the file.
        max_pixels: largest number of pixels in its header; a larger mask is not decoded.
        name: name of the mask, for messages.
        blurred: whether it may be a file whose compression blurs, as one class can be told in it.

    Returns:
        (height, width) uint8 of class ids.

    Raises:
        InputError: not an image, damaged, too large, or one that does not hold ids.
    """
    with open_picture(data, name, max_pixels=max_pixels) as image:
        return values_of(image, name) if blurred else ids_of(image, name)


def is_labelme(data: bytes) -> bool:
    """Say whether an uploaded mask is meant as a file of labelme, which no image begins as."""
    return data.lstrip()[:1] == b"{"


def decode_labelme(
    data: bytes, image: Array, names: Sequence[str], max_pixels: int, name: str = "the mask"
) -> Array:
    """Draw the mask that a file of labelme holds.

    Args:
        data: the bytes of the file.
        image: whose marks they are, (height, width, 3).
        names: names of the classes 1, 2 ...
        max_pixels: largest number of pixels that the masks in it may have, all together.
        name: name of the mask, for messages.

    Returns:
        (height, width) uint8 of class ids; 255 is unknown.

    Raises:
        InputError: not a file of labelme, damaged, of another size, none of the classes, or shapes
            that are too many, too large or far outside of the image.
    """
    _check_labelme(data, image, max_pixels, name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.json"
        path.write_bytes(data)
        try:
            marks = read_marks(path, names, image)
        except InputError as error:  # the place on this machine says nothing to the client
            raise InputError(str(error).replace(str(path), name)) from error
    far = FAR * max(image.shape[:2])
    for mark in (mark for kind in marks.values() for mark in kind):
        if np.abs(np.asarray(mark["points"], float)).max(initial=0) > far:
            raise InputError(f"{name} has a shape far outside of the image: expected pixels of it")
    try:
        return draw_marks(marks, image, len(names))
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _check_labelme(data: bytes, image: Array, max_pixels: int, name: str) -> None:
    """Raise InputError for shapes that would take very long, or fill the memory."""
    try:
        content = parse_json(data, name)
    except InputError as error:
        raise InputError(f"{error}: expected a PNG of class ids, or a file of labelme") from error
    if not isinstance(content, dict) or "shapes" not in content:
        raise InputError(
            f"{name} is JSON without shapes: expected a PNG of class ids, or a file of labelme"
        )
    shapes = check_shapes(content, name)
    most = max(1, DRAWN // (image.shape[0] * image.shape[1]))
    if len(shapes) > most:
        raise InputError(
            f"{name} has {len(shapes):,} shapes, expected at most {most:,} for an image of its "
            "size: send the mask as a PNG of class ids"
        )
    left = max_pixels
    for number, shape in enumerate(shapes, start=1):
        text = shape.get("mask")
        if isinstance(text, str):
            what = f"the mask of shape {number} of {name}"
            try:
                part = base64.b64decode(text, validate=True)
            except ValueError as error:
                raise InputError(f"{what} is not base64 ({error}): save it again") from error
            width, height = read_sides(part, max_pixels, what)
            left -= width * height
    if left < 0:
        raise InputError(
            f"the masks in {name} have {(max_pixels - left) / 1e6:.3g} million pixels in all, "
            f"expected at most {max_pixels:,}: send the mask as a PNG of class ids"
        )


def _check_image(image: Image.Image, max_pixels: int, name: str, sight: Sight | None) -> None:
    """Raise InputError for what cannot be used, by its header."""
    short, long = sorted(image.size)
    if long > MOST_LONGER * short:
        raise InputError(
            f"{name} is {image.width}x{image.height}: expected a longer side of at most "
            f"{MOST_LONGER:,} times the shorter one; cut it into pieces"
        )
    if sight is not None:
        sight.check(image.width, image.height, max_pixels, name)
    pages = page_count(image, name)
    if pages > 1:
        raise InputError(f"{name} holds {pages} pages (frames): send one")
