"""Before and after on pictures that nobody chose: docs/images/before_after.jpg.

    git worktree add older f54bcf8
    PYTHONPATH=older/src python results/before_after.py outline --tasks tasks --out before
    python results/before_after.py outline --tasks tasks --out after
    python results/before_after.py sheet --tasks tasks --before before --after after

`tasks` is the folder of results/masks.py. The tenth image of each task, in the order of the names,
is asked, of the first twelve tasks; five others, drawn with seed 0 from those that show the class,
are the supports. What is imported exists in both versions, so that both are asked alike.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from svfseg import FewShotSegmenter
from svfseg.data.images import overlay

TASKS, TENTH, SHOTS, SIDE, MARGIN = 12, 9, 5, 260, 24
COLORS = {"marked": (30, 120, 255), "before": (255, 64, 32), "after": (255, 64, 32)}


def read(task: Path) -> tuple[list[str], list[np.ndarray], list[np.ndarray]]:
    paths = sorted((task / "images").iterdir())
    images = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    masks = [np.asarray(Image.open(task / "masks" / f"{path.stem}.png")) for path in paths]
    return [path.stem for path in paths], images, masks


def chosen(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if (each / "images").is_dir())[:TASKS]


def outline(folder: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for task in chosen(folder):
        _, images, masks = read(task)
        order = np.random.default_rng(0).permutation(len(images)).tolist()
        supports = [i for i in order if i != TENTH and (masks[i] == 1).any()][:SHOTS]
        segmenter = FewShotSegmenter().fit([images[i] for i in supports],
                                           [masks[i] for i in supports])  # fmt: skip
        found = segmenter.predict(images[TENTH]).mask == 1
        Image.fromarray(found.astype(np.uint8) * 255).save(out / f"{task.name}.png")
        print(f"{task.name}: {100 * iou(found, masks[TENTH]):.0f} %")


def judged(found: np.ndarray, truth: np.ndarray) -> str:
    if (truth == 1).any():
        return f"IoU {100 * iou(found, truth):.0f} %"
    return "rightly left empty" if not found.any() else "outlined, though it is not there"


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    marked, known = truth == 1, truth != 255
    return float((found & marked).sum() / max(1, ((found & known) | marked).sum()))


def sheet(folder: Path, before: Path, after: Path, path: Path) -> None:
    tasks = chosen(folder)
    columns = 2
    width, height = 3 * (SIDE + 6) + MARGIN, SIDE + MARGIN
    whole = Image.new("RGB", (columns * width, -(-len(tasks) // columns) * height), "white")
    for number, task in enumerate(tasks):
        names, images, masks = read(task)
        left, top = number % columns * width, number // columns * height
        shown = {"marked": masks[TENTH] == 1}
        for label, made in (("before", before), ("after", after)):
            shown[label] = np.asarray(Image.open(made / f"{task.name}.png")) > 0
        for place, (label, mask) in enumerate(shown.items()):
            picture = Image.fromarray(overlay(images[TENTH], mask.astype(np.uint8), COLORS[label]))
            scale = SIDE / max(picture.size)
            picture = picture.resize([max(1, round(scale * side)) for side in picture.size])
            at = left + place * (SIDE + 6)
            whole.paste(picture, (at, top + MARGIN))
            text = f"{task.name}, {names[TENTH]}" if label == "marked" else label
            if label != "marked":
                text += f": {judged(mask, masks[TENTH])}"
            ImageDraw.Draw(whole).text((at + 2, top + 6), text, fill="black")
    whole.save(path, quality=82)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("outline", "sheet"))
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--after", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.command == "outline":
        outline(given.tasks, given.out)
    else:
        images = Path(__file__).parent.parent / "docs" / "images"
        sheet(given.tasks, given.before, given.after, given.out or images / "before_after.jpg")
