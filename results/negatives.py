"""Make the eight images "of anything" in src/svfseg/segmenter/negative_images.

    python results/negatives.py

Needs scikit-image, which carries the originals, all CC0 or in the public domain; see the README.md
beside the images for each one's source.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

FOLDER = Path(__file__).resolve().parents[1] / "src/svfseg/segmenter/negative_images"
# Longer side in pixels: textures take many bytes and show the same at a smaller size.
SIDES = {
    "astronaut": 400, "chelsea": 400, "coffee": 400, "rocket": 400,
    "camera": 400, "retina": 400, "grass": 288, "gravel": 288,
}  # fmt: skip
QUALITY = 88


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, side in SIDES.items():
        image = Image.fromarray(np.asarray(getattr(data, name)()))
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        image.save(FOLDER / f"{name}.jpg", quality=QUALITY, optimize=True)
    total = sum(path.stat().st_size for path in FOLDER.glob("*.jpg"))
    print(f"{len(SIDES)} images, {total / 1000:.0f} kB")


if __name__ == "__main__":
    main()
