"""Write classes of Pascal VOC as task folders for `svfseg bench masks`, and print its table.

    python results/masks.py tasks --root VOC2012 --field field --nuclei img2d.tif mask2d.tif \\
        --out tasks
    svfseg bench masks --tasks tasks --draws 2 --queries 16 --arms instant fitted --seconds 300 \\
        --csv results/masks.csv
    python results/masks.py table

Each class of Pascal VOC gets the first 20 images, in a shuffled order of the names, in which it
covers 2 to 80 %, and the first 12 in another order that do not show it. `field` holds tasks of
people in the field with public images: cracks in asphalt (CrackForest), cell membranes (ISBI 2012),
and blowholes and breaks in magnetic tiles (Huang and others, 2018). Of each come 20 images, and up
to 12 halves of others in which the class is not. The nuclei are 16 squares of the test image of
the package stardist.
"""

import argparse
import shutil
from pathlib import Path
from statistics import mean

import numpy as np
from PIL import Image

from svfseg.segmenter.task_bench import means, read_rows

CLASSES = (
    "bicycle", "bird", "boat", "bus", "car", "chair", "horse", "pottedplant", "sheep", "sofa",
)  # fmt: skip
NUMBERS = {
    "bicycle": 2, "bird": 3, "boat": 4, "bus": 6, "car": 7, "chair": 9, "horse": 13,
    "pottedplant": 16, "sheep": 17, "sofa": 18,
}  # fmt: skip
IMAGES, ABSENT, SEED, ABSENT_SEED, FIELD_SEED = 20, 12, 5, 77, 3
ARMS = ("instant", "fitted", "logistic", "forest")
ROWS = Path(__file__).parent / "masks.csv"
SCORES = (
    ("iou", "**mean IoU, %**", 100),
    ("boundary_f", "boundary F at 2 px, %", 100),
    ("emptied", "wrongly left empty, %", 100),
    ("outlined", "wrongly outlined, of images without the class, %", 100),
    ("confidence_rank", "confidence, rank correlation with the IoU", 1),
    ("confidence_error", "confidence, mean distance to the IoU, points", 100),
    ("fit_seconds", "fit, s", 1),
    ("query_seconds", "a query, s", 1),
)


def write(root: Path, out: Path) -> None:
    folder = root / "SegmentationClassAug"
    masks = sorted((folder if folder.is_dir() else root / "SegmentationClass").glob("*.png"))
    order = np.random.default_rng(SEED).permutation(len(masks))
    left = dict.fromkeys(CLASSES, IMAGES)
    for path in (masks[i] for i in order):
        image = root / "JPEGImages" / f"{path.stem}.jpg"
        if not image.is_file():
            continue
        ids = np.array(Image.open(path))
        for name in CLASSES:
            marked = ids == NUMBERS[name]
            if not left[name] or not 0.02 < marked.mean() < 0.8:
                continue
            left[name] -= 1
            task = out / f"voc_{name}"
            for part in ("images", "masks"):
                (task / part).mkdir(parents=True, exist_ok=True)
            (task / "classes.txt").write_text(f"{name}\n")
            shutil.copy(image, task / "images")
            mask = np.where(ids == 255, 255, marked).astype(np.uint8)
            Image.fromarray(mask).save(task / "masks" / f"{path.stem}.png")

    order = np.random.default_rng(ABSENT_SEED).permutation(len(masks))
    for name in CLASSES:
        found = 0
        for path in (masks[i] for i in order):
            image = root / "JPEGImages" / f"{path.stem}.jpg"
            if not image.is_file():
                continue
            ids = np.array(Image.open(path))
            if found < ABSENT and not (ids == NUMBERS[name]).any():
                found += 1
                shutil.copy(image, out / f"voc_{name}" / "images")
                empty = Image.fromarray(np.zeros_like(ids))
                empty.save(out / f"voc_{name}" / "masks" / f"{path.stem}.png")


def write_field(folder: Path, out: Path) -> None:
    """Write 20 images of each task, and halves of others that do not show the class."""
    for source in sorted(each for each in folder.iterdir() if each.is_dir()):
        task = out / source.name
        for part in ("images", "masks"):
            (task / part).mkdir(parents=True, exist_ok=True)
        shutil.copy(source / "classes.txt", task)
        paths = sorted((source / "images").iterdir())
        order = np.random.default_rng(FIELD_SEED).permutation(len(paths))
        for path in (paths[i] for i in order[:IMAGES]):
            shutil.copy(path, task / "images")
            shutil.copy(source / "masks" / f"{path.stem}.png", task / "masks")
        found = 0
        for path in (paths[i] for i in order[IMAGES:]):
            image = np.array(Image.open(path))
            mask = np.array(Image.open(source / "masks" / f"{path.stem}.png"))
            rows, columns = (side // 2 for side in mask.shape)
            halves = (np.s_[:rows], np.s_[rows:], np.s_[:, :columns], np.s_[:, columns:])
            without = next((half for half in halves if not mask[half].any()), None)
            if without is not None and found < ABSENT:
                name = f"absent{found:02}.png"
                Image.fromarray(image[without]).save(task / "images" / name)
                Image.fromarray(mask[without]).save(task / "masks" / name)
                found += 1


def write_nuclei(image: Path, mask: Path, out: Path) -> None:
    """Write 16 squares of a picture, scaled to 8 bits by its highest value."""
    task = out / "nuclei"
    for part in ("images", "masks"):
        (task / part).mkdir(parents=True, exist_ok=True)
    (task / "classes.txt").write_text("nucleus\n")
    values = np.array(Image.open(image)).astype(float)
    grey = (values / values.max() * 255).astype(np.uint8)
    marked = (np.array(Image.open(mask)) > 0).astype(np.uint8)
    side = grey.shape[0] // 4
    for row in range(4):
        for column in range(4):
            square = np.s_[row * side : (row + 1) * side, column * side : (column + 1) * side]
            name = f"n{row}{column}.png"
            Image.fromarray(np.stack([grey[square]] * 3, -1)).save(task / "images" / name)
            Image.fromarray(marked[square]).save(task / "masks" / name)


def table() -> str:
    """IoU of each task, and the means, over draws that all ways have answered."""
    rows = read_rows(ROWS)
    arms = [arm for arm in ARMS if any(row["arm"] == arm for row in rows)]
    answered: dict[tuple[str, int, int], set[str]] = {}
    for row in rows:
        answered.setdefault((row["task"], row["shots"], row["draw"]), set()).add(row["arm"])
    rows = [r for r in rows if answered[r["task"], r["shots"], r["draw"]] == set(arms)]
    keys = [(shots, arm) for shots in (1, 5) for arm in arms]
    heads = [f"{arm}, {shots}" for shots, arm in keys]
    lines = [f"| task | {' | '.join(heads)} |", f"|---|{'---|' * len(keys)}"]
    for task in dict.fromkeys(row["task"] for row in rows):
        cells = []
        for shots, arm in keys:
            own = [
                r["iou"] for r in rows if (r["task"], r["shots"], r["arm"]) == (task, shots, arm)
            ]
            cells.append(f"{100 * mean(value or 0 for value in own):.0f}")
        lines.append(f"| {task} | {' | '.join(cells)} |")
    summary = {(row["shots"], row["arm"]): row for row in means(rows)}
    for name, label, scale in SCORES:
        cells = [
            f"{scale * summary[key][name]:.{2 if scale == 1 else 0}f}"
            if name in summary[key]
            else "–"
            for key in keys
        ]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    spans = [f"{100 * summary[k]['low']:.0f} to {100 * summary[k]['high']:.0f}" for k in keys]
    lines.insert(-len(SCORES) + 1, f"| 95 % interval of it | {' | '.join(spans)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("tasks", "table"))
    parser.add_argument("--root", type=Path)
    parser.add_argument("--field", type=Path)
    parser.add_argument("--nuclei", type=Path, nargs=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "tasks":
        write(arguments.root, arguments.out)
        if arguments.field:
            write_field(arguments.field, arguments.out)
        if arguments.nuclei:
            write_nuclei(*arguments.nuclei, arguments.out)
    else:
        print(table())
