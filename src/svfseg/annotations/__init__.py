"""Read images, masks and marks, and write masks for other programs.

Names load what they need on first use.
"""

from typing import TYPE_CHECKING

from svfseg._lazy import lazy_names

if TYPE_CHECKING:  # what type checkers and editors see of the names below
    from svfseg.annotations.folders import SupportFiles, find_images, find_supports
    from svfseg.annotations.inputs import ImageLike, MaskLike, as_image, as_mask
    from svfseg.annotations.marks import draw_marks
    from svfseg.annotations.marks_files import read_marks

_HOMES = {
    "SupportFiles": "svfseg.annotations.folders",
    "find_images": "svfseg.annotations.folders",
    "find_supports": "svfseg.annotations.folders",
    "ImageLike": "svfseg.annotations.inputs",
    "MaskLike": "svfseg.annotations.inputs",
    "as_image": "svfseg.annotations.inputs",
    "as_mask": "svfseg.annotations.inputs",
    "read_marks": "svfseg.annotations.marks_files",
    "draw_marks": "svfseg.annotations.marks",
}
__all__ = [
    "ImageLike",
    "MaskLike",
    "SupportFiles",
    "as_image",
    "as_mask",
    "draw_marks",
    "find_images",
    "find_supports",
    "read_marks",
]

__getattr__ = lazy_names(__name__, _HOMES)
