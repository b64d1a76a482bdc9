"""Read images and masks given as paths, pictures, arrays or marks into arrays."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from svfseg.annotations.marks import draw_marks
from svfseg.annotations.marks_files import MARK_ENDS, read_marks
from svfseg.data.images import Array, check_same_size, read_image, rgb_of
from svfseg.data.masks import ids_of, one_class, turned_with, values_of
from svfseg.data.opening import open_picture
from svfseg.errors import InputError

logger = logging.getLogger(__name__)
# A mask of a larger share of the image than this is rarely meant.
COVERED = 0.95
# A path, a picture, or an array.
ImageLike = str | Path | Image.Image | npt.NDArray[Any]
# The same, marks by class, or None for an image without any class.
MaskLike = ImageLike | Mapping[str, Any] | None


def as_image(image: ImageLike, name: str = "the image", page: int | None = None) -> Array:
    """Read an image as (height, width, 3) uint8 RGB, upright as its EXIF data says.

    Args:
        image: a path, a Pillow image, or a uint8 array (height, width[, 3 or 4]).
        name: name to use in messages.
        page: page of a file of several, from 1; None takes the first, and warns.

    Raises:
        MissingFileError: no such file.
        InputError: not an image, or an array of another shape or type.

    Example:
        >>> from PIL import Image
        >>> as_image(Image.new("L", (40, 30))).shape
        (30, 40, 3)
    """
    if isinstance(image, (str, Path)):
        return read_image(image, upright=True, page=page)
    if isinstance(image, Image.Image):
        return rgb_of(image, name, upright=True)
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.size == 0:
        raise InputError(
            f"{name} is an array of {array.dtype} and shape {array.shape}: expected uint8 "
            "(height, width, 3), RGB in 0 to 255"
        )
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.shape[2] not in (3, 4):
        raise InputError(f"{name} has {array.shape[2]} channels: expected RGB")
    return np.ascontiguousarray(array[..., :3])


def as_mask(
    source: MaskLike, image: Array, names: Sequence[str], name: str = "the mask",
    picture: ImageLike | None = None,
) -> Array:  # fmt: skip
    """Read a mask as (height, width) uint8 of class ids, 1, 2 ... in the order of the names.

    With one class any value but 0 is the class; 255 is unknown where other values stand beside it,
    and a mask with soft edges is the class from 128 on (`svfseg.data.masks.one_class`). Unknown
    pixels are 255.

    Args:
        source: a path (of a mask, or of a file of marks, see
            `svfseg.annotations.marks_files.read_marks`), a Pillow image, an array of ids or bools,
            marks (`svfseg.annotations.marks.draw_marks`), or None: an image without any class.
        image: whose mask it is.
        names: names of the classes.
        name: name to use in messages.
        picture: where the image came from: a mask that was drawn on it as it is stored is turned as
            it is.

    Raises:
        MissingFileError: no such file.
        InputError: not a mask of ids, another size than the image, or an unknown id.

    Example:
        >>> import numpy as np
        >>> image = np.zeros((2, 3, 3), np.uint8)
        >>> as_mask(np.array([[0, 9, 9], [0, 0, 255]]).astype(np.uint8), image, ["crack"])
        array([[  0,   1,   1],
               [  0,   0, 255]], dtype=uint8)
    """
    if source is None:
        return np.zeros(image.shape[:2], np.uint8)
    classes = len(names)
    if isinstance(source, (str, Path)) and Path(source).suffix.lower() in MARK_ENDS:
        place = picture if isinstance(picture, (str, Path)) else None
        marks = read_marks(source, names, image, place)
        try:
            return draw_marks(marks, image, classes)
        except InputError as error:
            raise InputError(f"{source}: {error}") from error
    if isinstance(source, Mapping):
        return draw_marks(source, image, classes)
    read = values_of if classes == 1 else ids_of
    if isinstance(source, (str, Path)):
        with open_picture(source) as opened:
            mask = read(opened, f"{source}")
    elif isinstance(source, Image.Image):
        mask = read(source, name)
    else:
        mask = np.asarray(source)
        if mask.ndim != 2 or mask.dtype.kind not in "bui":
            raise InputError(
                f"{name} is an array of {mask.dtype} and shape {mask.shape}: expected whole "
                "numbers or bools (height, width)"
            )
        if mask.size and (mask.min() < 0 or mask.max() > 255):
            raise InputError(f"{name} holds {mask.min()} to {mask.max()}: expected ids 0 to 255")
        mask = mask.astype(np.uint8)
    mask = turned_with(image, mask, picture, name)
    check_same_size(image, mask, name)
    if classes == 1:
        return one_class(mask, name)
    unknown = sorted(set(np.unique(mask).tolist()) - set(range(classes + 1)) - {255})
    if unknown:
        raise InputError(f"{name} holds ids {unknown}: there are {classes} classes, 1 to {classes}")
    return np.ascontiguousarray(mask)


def check_marked(mask: Array, names: Sequence[str], name: str) -> None:
    """Warn of a mask that covers nearly all of its image: a photograph, or all white.

    Args:
        mask: mask of `as_mask`.
        names: names of the classes.
        name: name of the mask, for messages.

    Raises:
        InputError: no class is marked in it.
    """
    share = float(((mask > 0) & (mask < 255)).mean())
    if share > COVERED:
        logger.warning("%s covers %.0f %% of the image: is it the right file?", name, 100 * share)
    if share:
        return
    if (mask == 255).any():
        raise InputError(
            f"{name} holds 255 alone, which is unknown where there are several classes: expected "
            f"the ids 1 to {len(names)}, for {', '.join(names)}"
        )
    raise InputError(
        f"{name} is empty: mark the class in it, or give the image as one without the class (with "
        "None for its mask)",
        settings=("negative",),
    )
