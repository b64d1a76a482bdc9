"""Decode the images and masks of uploads, whose bytes may be anything."""

from svfseg.data.images import Array, rgb_of
from svfseg.data.masks import ids_of, values_of
from svfseg.data.opening import open_picture, page_count
from svfseg.errors import InputError


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
    with open_picture(data, name, max_pixels=max_pixels) as image:
        pages = page_count(image, name)
        if pages > 1:
            raise InputError(f"{name} holds {pages} pages (frames): send one")
        return rgb_of(image, name, upright=True)


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
