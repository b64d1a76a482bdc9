"""The picture of the README: docs/images/predict_birds.jpg.

    python results/readme_picture.py --root VOC2012

The first image of Pascal VOC's val list with a bird alone, on 4 % of the image or more, is the
support; the next three are asked. So nobody chose them.
"""

import argparse
from pathlib import Path

import numpy as np
from limits import first_images, read
from PIL import Image

from svfseg import FewShotSegmenter
from svfseg.data.images import overlay

BIRD, HEIGHT, GAP = 3, 300, 6


def main(root: Path) -> None:
    names = first_images(root, BIRD, (0.04, 1.0), 4)
    images = [np.asarray(Image.open(root / f"JPEGImages/{name}.jpg")) for name in names]
    mask = (read(root, names[0]) == BIRD).astype(np.uint8)
    segmenter = FewShotSegmenter().fit(images[0], mask)
    pictures = [overlay(images[0], mask, (30, 120, 255))]
    pictures += [overlay(image, segmenter.predict(image).mask) for image in images[1:]]
    small = [Image.fromarray(each) for each in pictures]
    small = [each.resize((round(each.width * HEIGHT / each.height), HEIGHT)) for each in small]
    width = sum(each.width + GAP for each in small) - GAP
    whole, left = Image.new("RGB", (width, HEIGHT), "white"), 0
    for each in small:
        whole.paste(each, (left, 0))
        left += each.width + GAP
    path = Path(__file__).parent.parent / "docs" / "images" / "predict_birds.jpg"
    whole.save(path, quality=85)
    print(" ".join(names))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True)
    main(parser.parse_args().root)
