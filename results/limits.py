"""Where the tool fails, as a picture: docs/images/limits.jpg and results/limits.csv.

    python results/limits.py --root VOC2012

A row each of: thin things (bicycle), things of parts (chair), small ones (bottle), and look-alikes
(a horse shown, cows asked). One support; the first images of Pascal VOC's val list that show the
class (alone, on 4 % of the image or more; bottles on 1 to 4 %) are the support and the three
queries, so that nobody chose them.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from svfseg import FewShotSegmenter
from svfseg.data.images import overlay

HERE = Path(__file__).parent
SIDE = 240
# what is shown, its id, what is asked, and the share of an image that it has
ROWS = {
    "thin: bicycle": (2, 2, (0.04, 1.0)),
    "of parts: chair": (9, 9, (0.04, 1.0)),
    "small: bottle": (5, 5, (0.01, 0.04)),
    "look-alikes: a horse shown, cows asked": (13, 10, (0.04, 1.0)),
}


def first_images(root: Path, class_id: int, share: tuple[float, float], count: int) -> list[str]:
    found = []
    for name in (root / "ImageSets/Segmentation/val.txt").read_text().split():
        mask = read(root, name)
        alone = set(np.unique(mask)) <= {0, 255, class_id}
        if alone and share[0] <= (mask == class_id).mean() < share[1]:
            found.append(name)
        if len(found) == count:
            break
    return found


def read(root: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(root / f"SegmentationClassAug/{name}.png"))


def iou(found: np.ndarray, truth: np.ndarray, class_id: int) -> float:
    wanted, counted = truth == class_id, truth != 255
    return float((found & wanted & counted).sum() / max(1, ((found | wanted) & counted).sum()))


def tile(
    image: np.ndarray, mask: np.ndarray, text: str, color: tuple[int, int, int]
) -> Image.Image:
    picture = Image.fromarray(overlay(image, mask.astype(np.uint8), color))
    picture.thumbnail((SIDE, SIDE))
    whole = Image.new("RGB", (SIDE, SIDE + 22), "white")
    whole.paste(picture, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
    ImageDraw.Draw(whole).text((4, SIDE + 5), text, fill="black")
    return whole


def main(root: Path) -> None:
    sheet = Image.new("RGB", (4 * SIDE + 30, len(ROWS) * (SIDE + 50)), "white")
    lines = []
    for number, (title, (shown, asked, share)) in enumerate(ROWS.items()):
        same = shown == asked
        support, *rest = first_images(root, shown, share, 4 if same else 1)
        queries = rest if same else first_images(root, asked, share, 3)
        images = {n: np.asarray(Image.open(root / f"JPEGImages/{n}.jpg"))
                  for n in (support, *queries)}  # fmt: skip
        mask = (read(root, support) == shown).astype(np.uint8)
        segmenter = FewShotSegmenter("default").fit(images[support], mask)
        tiles = [tile(images[support], mask, f"shown: {support}", (30, 120, 255))]
        for name in queries:
            found = segmenter.predict(images[name]).mask == 1
            score = iou(found, read(root, name), asked)
            text = f"IoU {100 * score:.0f} %" if same else f"{100 * found.mean():.0f} % outlined"
            tiles.append(tile(images[name], found, f"{text}: {name}", (255, 64, 32)))
            lines.append((title, support, name, f"{100 * score:.1f}", f"{100 * found.mean():.1f}"))
        top = number * (SIDE + 50)
        ImageDraw.Draw(sheet).text((4, top + 8), title, fill="black", font_size=15)
        for i, each in enumerate(tiles):
            sheet.paste(each, (i * (SIDE + 10), top + 28))
    sheet.save(HERE.parent / "docs" / "images" / "limits.jpg", quality=85)
    with (HERE / "limits.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("case", "support", "query", "iou", "outlined"))
        writer.writerows(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True)
    main(parser.parse_args().root)
