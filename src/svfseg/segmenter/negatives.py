"""Photographs of anything that come with svfseg, to compare a class with."""

from functools import lru_cache
from pathlib import Path

from svfseg.data.images import Array, read_image

# README.md in this folder names the source and the licence of each.
FOLDER = Path(__file__).parent / "negative_images"
# People, a cat, a cup, a rocket at its tower, a photographer, an eye, grass, stones.
NAMES = ("astronaut", "chelsea", "coffee", "rocket", "camera", "retina", "grass", "gravel")


@lru_cache(maxsize=1)
def photographs() -> tuple[Array, ...]:
    """Read the eight photographs.

    Returns:
        (height, width, 3) uint8 each, in a fixed order.
    """
    return tuple(read_image(FOLDER / f"{name}.jpg") for name in NAMES)
