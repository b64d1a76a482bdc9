"""Make the eight images "of anything" in src/svfseg/segmenter/negative_images.

    python results/negatives.py

Needs scikit-image, which carries the originals, all CC0 or in the public domain; see the README.md
beside the images for each one's source. Two images join two pictures each: a picture of several
things resembles more classes than a picture of one, and the cut of the empty answer follows the
images that resemble the class most. Which ones to join was chosen on the ten classes of Pascal VOC
that own_data.py is not about.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from skimage import data

FOLDER = Path(__file__).resolve().parents[1] / "src/svfseg/segmenter/negative_images"
# Longer side in pixels: textures take many bytes and show the same at a smaller size.
SIDES = {
    "astronaut": 400, "chelsea": 400, "coffee": 400, "rocket": 400, "retina": 400, "gravel": 288,
}  # fmt: skip
PAIRS = (("astronaut", "rocket"), ("camera", "astronaut"))
HALF = (200, 300)
QUALITY = 88


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, side in SIDES.items():
        image = picture(name)
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        write(image, name)
    for pair in PAIRS:
        joined = Image.new("RGB", (2 * HALF[0], HALF[1]))
        for number, name in enumerate(pair):
            half = ImageOps.fit(picture(name).convert("RGB"), HALF, Image.Resampling.LANCZOS)
            joined.paste(half, (number * HALF[0], 0))
        write(joined, "_".join(pair))
    total = sum(path.stat().st_size for path in FOLDER.glob("*.jpg"))
    print(f"{len(SIDES) + len(PAIRS)} images, {total / 1000:.0f} kB")


def picture(name: str) -> Image.Image:
    return Image.fromarray(np.asarray(getattr(data, name)()))


def write(image: Image.Image, name: str) -> None:
    image.save(FOLDER / f"{name}.jpg", quality=QUALITY, optimize=True)


if __name__ == "__main__":
    main()
