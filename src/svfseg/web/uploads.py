"""Images and masks out of the bytes of an upload, which may be anything."""

import io

from PIL import Image

from svfseg.data.images import Array, ids_of, rgb_of
from svfseg.errors import InputError

# What photographs and masks come as; the others of Pillow are seldom met and often attacked.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")


def decode_image(data: bytes, max_pixels: int, name: str = "the image") -> Array:
    """(height, width, 3) uint8 RGB of a file's bytes, upright as its EXIF data says.

    Args:
        data: the file.
        max_pixels: that its header may claim; nothing is decoded beyond.
        name: for messages.

    Raises:
        InputError: not an image, damaged, too large, or of more than 8 bits a channel.
    """
    return rgb_of(_open(data, max_pixels, name), name, upright=True)


def decode_mask(data: bytes, max_pixels: int, name: str = "the mask") -> Array:
    """(height, width) uint8 of class ids, of a file's bytes.

    Args:
        data: the file.
        max_pixels: that its header may claim.
        name: for messages.

    Raises:
        InputError: not an image, damaged, too large, or one that holds no ids.
    """
    return ids_of(_open(data, max_pixels, name), name)


def _open(data: bytes, max_pixels: int, name: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        size = f"{image.width}x{image.height}, "
        few = image.width * image.height <= max_pixels
    except Image.DecompressionBombError:  # Pillow's own bound, where ours is above
        size, few = "", False
    except Exception as error:  # decoders fail in many ways on what only looks like an image
        raise InputError(
            f"{name} is no image that can be read: send one of {', '.join(FORMATS)}"
        ) from error
    if not few:
        raise InputError(
            f"{name} is too large: {size}where at most {max_pixels:,} pixels may be; scale it down"
        )
    return image
