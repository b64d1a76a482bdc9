"""Read masks: class ids as they are stored, and grey pictures of one class."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from svfseg.data.images import Array, decoded, orientation_of, turned
from svfseg.data.opening import bits_per_channel, is_inverted, is_lossy, open_picture, page_count
from svfseg.errors import InputError

logger = logging.getLogger(__name__)
# From this value on a soft mask is the class.
MIDDLE = 128
# A mask is soft if more of the pixels between have a neighbour with more, see `_is_sloped`.
_RISING = 0.6
# And, where white is most frequent, above that of ids whose borders are unknown (255).
_BORDERED = 0.5
# Channels of a grey picture that was compressed as a coloured one differ by at most this.
_NEARLY_GREY = 48


def read_mask(path: str | Path) -> Array:
    """Read a mask of class ids (height, width), uint8: palette, grey, or black and white.

    Raises:
        MissingFileError: no such file.
        InputError: not an image, or one that holds no ids (colour, larger values, several pages, a
            compression that blurs).
    """
    with open_picture(path) as image:
        return ids_of(image, f"{path}")


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


def ids_of(image: Image.Image, name: str) -> Array:
    """Read class ids (height, width), uint8, of an opened mask; black and white are 0 and 1.

    Args:
        image: as `svfseg.data.opening.open_picture` or Pillow opened it.
        name: name to use in messages.

    Raises:
        InputError: damaged, or one that holds no ids: see `read_mask`.
    """
    if is_lossy(image):
        raise InputError(
            f"{name} is a {image.format}, whose compression blurs the ids of a mask: save it as "
            "a PNG from where it was drawn (a copy of this file as a PNG stays blurred)"
        )
    return values_of(image, name)


def values_of(image: Image.Image, name: str) -> Array:
    """Read the stored values (height, width), uint8, of an opened mask, blurred ones too.

    Grey in three channels, as painting programs and browsers save it, is grey; so are 16 bits that
    hold no value above 255. Where one colour is everywhere, or under all that is not transparent,
    the mask is what is not transparent. White stored as zero (TIFF) stays as it is stored.

    Args:
        image: as `svfseg.data.opening.open_picture` or Pillow opened it.
        name: name to use in messages.

    Raises:
        InputError: damaged, or one that holds no ids: colour, larger values, or several pages.
    """
    pages = page_count(image, name)
    if pages > 1:
        raise InputError(f"{name} holds {pages} pages (frames): expected a mask of one; save the "
                         "page of the mask as a PNG")  # fmt: skip
    deep = bits_per_channel(image) > 8
    inverted, lossy = is_inverted(image), is_lossy(image)  # the file is closed once it is read
    values: npt.NDArray[Any] = decoded(lambda: np.asarray(image), name)
    if image.mode == "P" and "transparency" in image.info and len(np.unique(values)) <= 2:
        alpha = decoded(lambda: np.asarray(image.convert("RGBA")), name)[..., 3]
        return alpha if alpha.min() < alpha.max() else values.astype(np.uint8)
    if image.mode == "P" and image.format == "GIF":  # its writers drop unused colours
        colours = decoded(lambda: np.asarray(image.convert("RGB")), name)
        if (colours == colours[..., :1]).all():
            values = colours[..., 0]
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") and not deep:
        values = _without_alpha(decoded(lambda: np.asarray(image.convert("RGBA")), name), name)
    elif image.mode == "RGB" and not deep:
        values = _grey(values, name, lossy)
    elif image.mode.startswith("I") and values.min() >= 0 and values.max() <= 255:
        pass
    elif image.mode not in ("P", "L", "1") or deep:
        kind = "16 or 32 bits per pixel" if deep else "colours"
        raise InputError(
            f"{name} is not a mask of class ids: it has {kind} (mode {image.mode}); save it as "
            "an 8-bit palette or grey PNG whose values are the ids"
        )
    if inverted:
        values = ~values if values.dtype == bool else 255 - values
    ids: Array = values.astype(np.uint8)
    return turned(ids, orientation_of(image))


def _without_alpha(values: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    alpha = values[..., 3]
    if alpha.min() == 255:
        return _grey(values[..., :3], name, False)
    visible = values[alpha > 0][:, :3]
    if len(visible) and (visible == visible[0]).all():
        return alpha
    raise InputError(
        f"{name} has transparency (alpha) over several colours, which is not a mask: save it as a "
        "grey PNG without alpha"
    )


def _grey(values: npt.NDArray[Any], name: str, lossy: bool) -> npt.NDArray[Any]:
    """One channel of three that are equal, or nearly so in a blurred file."""
    if (values == values[..., :1]).all():
        return values[..., 0]
    spread = values.max(axis=2).astype(int) - values.min(axis=2)
    if lossy and int(spread.max()) <= _NEARLY_GREY:
        grey: npt.NDArray[Any] = values.astype(np.uint16).mean(axis=2).round()
        return grey
    blurred = " and its compression is lossy (blurred)" if lossy else ""
    raise InputError(
        f"{name} is not a mask of class ids: it has colours{blurred}; save it as an 8-bit palette "
        "or grey PNG whose values are the ids"
    )


def one_class(values: Array, name: str) -> Array:
    """Turn the values of a mask of one class into 0, 1 and 255 (unknown).

    Every value but 0 is the class; 255 is unknown where another value stands beside it. A picture
    with soft edges, or blurred by compression, is the class from 128 on, which is said.

    Args:
        values: (height, width) uint8.
        name: name to use in messages.

    Returns:
        (height, width) uint8.

    Example:
        >>> import numpy as np
        >>> one_class(np.array([[0, 9, 255]], np.uint8), "the mask")
        array([[  0,   1, 255]], dtype=uint8)
    """
    counts = np.bincount(values.ravel(), minlength=256)
    middle = 1
    if _is_soft(values, counts):
        middle = MIDDLE
    elif _is_sloped(values, counts):
        middle = int(np.percentile(values[values > 0], 95)) // 2
    ids: Array = (values >= middle).astype(np.uint8)
    if middle > 1:
        logger.warning(
            "%s has soft edges or blur (grey values between 0 and %d): from %d on they are the "
            "class", name, int(values.max()), middle,
        )  # fmt: skip
        return ids
    if counts[1:255].any():
        ids[values == 255] = 255
    return ids


def _is_soft(values: Array, counts: npt.NDArray[Any]) -> bool:
    """Whether values are shades of a black and white picture, and no ids."""
    between = np.flatnonzero(counts[1:255]) + 1
    if len(between) < 3 or between.max() <= 64:  # ids begin at 1, and rarely are so many
        return False
    if counts[255] and counts[255] >= counts[1:].max():
        # noise of a compression lies near 0 and near 255; ids do not
        near_the_ends = counts[33:192].sum() < 0.2 * counts[1:255].sum()
        return bool(near_the_ends) or _rising_share(values, 255) > _BORDERED
    # noise of a compression lies near 0 and near 255
    return bool(
        len(between) >= 8 and between.max() >= 225 and counts[192:].sum() > counts[33:192].sum()
    )


def _is_sloped(values: Array, counts: npt.NDArray[Any]) -> bool:
    """Whether values rise from the edge of a thing to its middle, which those of ids do not."""
    if np.count_nonzero(counts[1:]) < 8:
        return False
    known = np.where(values == 255, 0, values)  # 255 borders ids as unknown
    return _rising_share(known, 1 + int(counts[1:].argmax())) > _RISING


def _rising_share(values: Array, top: int) -> float:
    """Give the share of the pixels between nothing and a value that have a neighbour with more.

    Of a slope nearly all have one; of numbered things, which may touch, few.
    """
    between = (values > 0) & (values != top)
    if not between.any():
        return 0.0
    padded, highest = np.pad(values, 1), np.zeros_like(values)
    for top_row, left in ((0, 1), (2, 1), (1, 0), (1, 2), (0, 0), (0, 2), (2, 0), (2, 2)):
        shifted = padded[top_row : top_row + values.shape[0], left : left + values.shape[1]]
        highest = np.maximum(highest, shifted)
    return float((highest > values)[between].mean())


def turned_with(image: Array, mask: Array, source: object, name: str) -> Array:
    """Turn a mask as its picture was turned, where it was drawn on the picture as stored.

    Args:
        image: (height, width, 3), upright.
        mask: (height, width).
        source: where the image came from; a path or a picture tells its orientation.
        name: name of the mask, for messages.

    Returns:
        The mask; turned if only that makes its size the image's.
    """
    if image.shape[:2] == mask.shape[:2] or image.shape[:2] != mask.shape[1::-1]:
        return mask
    orientation = orientation_of(source)
    if orientation < 5:
        return mask
    logger.warning("%s was turned as its image is (EXIF orientation %d)", name, orientation)
    return turned(mask, orientation)
