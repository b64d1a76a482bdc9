"""Decode the images and masks of uploads, whose bytes may be anything."""

import io

from PIL import Image

from svfseg.data.images import Array, ids_of, rgb_of
from svfseg.errors import InputError

# Pillow reads more formats, but they are rare, and their decoders are often attacked.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")


def decode_image(data: bytes, max_pixels: int, name: str = "the image") -> Array:
    """Decode an image, upright as its EXIF data says.

    Args:
        data: the bytes of the file.
        max_pixels: largest number of pixels in its header; a larger image is not decoded.
        name: name of the image, for messages.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        InputError: not an image, damaged, too large, or of more than 8 bits per channel.
    """
    return rgb_of(_open(data, max_pixels, name), name, upright=True)


def decode_mask(data: bytes, max_pixels: int, name: str = "the mask") -> Array:
    """Decode a mask.

    Args:
        data: the bytes of the file.
        max_pixels: largest number of pixels in its header; a larger mask is not decoded.
        name: name of the mask, for messages.

    Returns:
        (height, width) uint8 of class ids.

    Raises:
        InputError: not an image, damaged, too large, or one that does not hold ids.
    """
    return ids_of(_open(data, max_pixels, name), name)


def _open(data: bytes, max_pixels: int, name: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        size = f"{image.width}x{image.height}, "
        fits = image.width * image.height <= max_pixels
    except Image.DecompressionBombError:  # Pillow's own limit, where ours is larger
        size, fits = "", False
    except Exception as error:  # decoders fail in many ways on what only looks like an image
        raise InputError(
            f"{name} is not an image that can be read: send one of {', '.join(FORMATS)}"
        ) from error
    if not fits:
        raise InputError(
            f"{name} is too large: {size}expected at most {max_pixels:,} pixels; scale it down"
        )
    return image
