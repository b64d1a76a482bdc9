"""Photographs that come with scikit-image: images of anything, to compare a class with."""

from functools import lru_cache

from svfseg.data.images import Array, read_image
from svfseg.files import packaged

# People, a cat, a cup, a rocket at its tower, a motorcycle in a garage, an eye, tissue, stones.
NAMES = (
    "astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png",
    "retina.jpg", "ihc.png", "gravel.png",
)  # fmt: skip


@lru_cache(maxsize=1)
def photographs() -> tuple[Array, ...]:
    """(height, width, 3) uint8 each, in a fixed order.

    Raises:
        InputError: this version of scikit-image does not carry one of them.
    """
    return tuple(read_image(packaged("skimage", "scikit-image", f"data/{n}")) for n in NAMES)
