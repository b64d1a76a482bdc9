"""Self-made pictures: a coloured disc among other shapes, the same to every bit on any machine."""

import numpy as np

from svfseg.data.index import Sample

SIDE = 160


def scene(number: int, contrast: float = 1.0, noise: int = 20) -> Sample:
    """A striped disc, the class, beside two plain bars on a background of noise.

    Args:
        number: of the scene; its places follow from it.
        contrast: 1 draws the disc in full colours, 0 in those of the background.
        noise: largest deviation of a background pixel.
    """
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:SIDE, :SIDE]
    image = 110 + rng.integers(-noise, noise + 1, (SIDE, SIDE, 3))
    for _ in range(2):
        top, left = rng.integers(0, SIDE - 60, 2)
        image[top : top + 16, left : left + 60] = rng.integers(60, 160, 3)
    row, column, radius = *rng.integers(50, SIDE - 50, 2), rng.integers(26, 42)
    inside = (x - column) ** 2 + (y - row) ** 2 < radius**2
    stripes = np.where(((x + y) // 8 % 2)[..., None] == 0, (230, 60, 40), (250, 210, 60))
    mixed = contrast * stripes + (1 - contrast) * image
    image = np.where(inside[..., None], mixed, image)
    return Sample(image.clip(0, 255).astype(np.uint8), inside.astype(np.uint8))
