"""Photographs of various things that come with svfseg, to compare a class with."""

from functools import lru_cache
from pathlib import Path

from svfseg.data.images import Array, read_image

# README.md in this folder names the source and the licence of each.
FOLDER = Path(__file__).parent / "negative_images"
# A person, a cat, a cup, a rocket at its tower, an eye, stones, and two of several things.
NAMES = (
    "astronaut", "chelsea", "coffee", "rocket", "retina", "gravel",
    "astronaut_rocket", "camera_astronaut",
)  # fmt: skip


@lru_cache(maxsize=1)
def photographs() -> tuple[Array, ...]:
    """Read the eight photographs.

    Returns:
        (height, width, 3) uint8 each, in a fixed order.
    """
    return tuple(read_image(FOLDER / f"{name}.jpg") for name in NAMES)
