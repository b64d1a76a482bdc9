"""Nuclei under a fluorescence microscope: what ImageNet's photographs look nothing like.

    pip download --no-deps stardist && unzip stardist-*.whl 'stardist/data/images/*'
    python results/far_domain.py run --data stardist/data/images --draw 0
    python results/far_domain.py run --data stardist/data/images --draw 1
    python results/far_domain.py table

One labelled image of 512x512 pixels with 125 nuclei, as it comes with the package stardist. `run`
cuts it into 16 squares: some are supports, the others are asked. Every tuned fit is made with the
preset, and with 5 and 20 times its rate and up to five times its steps (it ends where the loss
falls no more), for a domain that may want more; of five supports also as leaving out chooses.
`sizes` (part of `run`) shows the left half and asks the right one, at several sizes and in tiles.
Rows in far_domain.csv; half an hour on two cores; goes on where it was stopped.
"""

import argparse
import csv
import itertools
import statistics
import time
from pathlib import Path

import numpy as np
from PIL import Image

from svfseg import FewShotSegmenter
from svfseg.segmenter.adaptation import PRESETS

ROWS = Path(__file__).parent / "far_domain.csv"
FIELDS = ("part", "shot", "draw", "adapt", "steps", "lr", "size", "tile", "iou", "taken", "seconds")
SIDE, SHOTS, FASTER = 128, (1, 5), (20, 5)
SETTINGS = ((320, False), (512, False), (1024, False), (320, True), (160, True))


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The image scaled to 8 bits between its 1st and 99.8th percentile, and nuclei or not."""
    values = np.asarray(Image.open(folder / "img2d.tif")).astype(np.float32)
    low, high = np.percentile(values, (1, 99.8))
    grey = (255 * (values - low) / (high - low)).clip(0, 255).astype(np.uint8)
    nuclei = np.asarray(Image.open(folder / "mask2d.tif")) > 0
    return np.repeat(grey[..., None], 3, axis=2), nuclei.astype(np.uint8)


def score(segmenter: FewShotSegmenter, images, masks) -> float:
    found = [result.mask for result in segmenter.predict(list(images))]
    shared = sum(int(((f > 0) & (m > 0)).sum()) for f, m in zip(found, masks, strict=True))
    joined = sum(int(((f > 0) | (m > 0)).sum()) for f, m in zip(found, masks, strict=True))
    return shared / joined


def run(folder: Path, draw: int) -> None:
    image, nuclei = read(folder)
    corners = list(itertools.product(range(0, 512, SIDE), repeat=2))
    squares = [(slice(r, r + SIDE), slice(c, c + SIDE)) for r, c in corners]
    for shot in SHOTS:
        order = np.random.default_rng((draw, shot)).permutation(len(squares))
        shown, asked = ([squares[i] for i in part] for part in (order[:shot], order[shot:]))
        tries = [(None, 0, 0.0)]
        tries += [(mode, preset.steps, preset.lr) for mode, preset in PRESETS.items()]
        tries += [(mode, 0, 0.0) for mode in PRESETS if shot == 5]  # chosen by leaving out
        for times in FASTER:
            tries += [
                (mode, 5 * preset.steps, round(times * preset.lr, 6))
                for mode, preset in PRESETS.items()
            ]
        for mode, steps, lr in tries:
            row("squares", shot, draw, mode, steps, lr, 320, False, image, nuclei, shown, asked)
    left, right = (slice(0, 512), slice(0, 256)), (slice(0, 512), slice(256, 512))
    for size, tile in SETTINGS:
        row("sizes", 1, 0, None, 0, 0.0, size, tile, image, nuclei, [left], [right])


def row(part, shot, draw, mode, steps, lr, size, tile, image, nuclei, shown, asked) -> None:
    key = tuple(map(str, (part, shot, draw, mode or "none", steps, lr, size, tile)))
    if key in {tuple(r[f] for f in FIELDS[:8]) for r in rows()}:
        return
    segmenter = FewShotSegmenter(
        adapt=mode, steps=steps or None, lr=lr or None, size=size, tile=tile, reject_absent=False,
        device="cpu",
    )  # fmt: skip
    start = time.perf_counter()
    segmenter.fit([image[s] for s in shown], [nuclei[s] for s in shown])
    seconds = time.perf_counter() - start
    found = score(segmenter, [image[s] for s in asked], [nuclei[s] for s in asked])
    taken = 0 if segmenter.adaptation_ is None else segmenter.adaptation_.steps  # it may end early
    new = not ROWS.is_file()
    with ROWS.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(FIELDS)
        writer.writerow((*key, round(found, 4), taken, round(seconds, 1)))
    print(*key, round(found, 4), taken, round(seconds, 1), flush=True)


def rows() -> list[dict[str, str]]:
    return list(csv.DictReader(ROWS.read_text().splitlines())) if ROWS.is_file() else []


def table() -> str:
    """Mean and range over the draws; then the sizes."""
    groups: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for each in rows():
        if each["part"] == "squares":
            shots = groups.setdefault((each["adapt"], each["steps"], each["lr"]), {})
            shots.setdefault(each["shot"], []).append(100 * float(each["iou"]))
    text = [
        f"| adapt | steps | rate | {' | '.join(f'{s} support(s), IoU, %' for s in SHOTS)} |",
        "|---|---|---|---|---|",
    ]
    order = {mode: number for number, mode in enumerate(("none", *PRESETS))}
    ranked = sorted(groups.items(), key=lambda item: (order[item[0][0]], *map(float, item[0][1:])))
    for (mode, steps, lr), found in ranked:
        cells = [
            f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"
            if values
            else ""
            for values in (found.get(str(s), []) for s in SHOTS)
        ]
        name = "episodic" if mode == "none" else mode
        steps, lr = ("chosen", "chosen") if mode != "none" and steps == "0" else (steps, lr)
        text.append(f"| {name} | {steps} | {lr} | {' | '.join(cells)} |")
    text += ["", "| size | tiles | IoU, % |", "|---|---|---|"]
    for each in rows():
        if each["part"] == "sizes":
            tile = "yes" if each["tile"] == "True" else "no"
            text.append(f"| {each['size']} | {tile} | {100 * float(each['iou']):.1f} |")
    return "\n".join(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--data", type=Path, default=Path("stardist/data/images"))
    parser.add_argument("--draw", type=int, default=0)
    given = parser.parse_args()
    if given.what == "run":
        run(given.data, given.draw)
    else:
        print(table())
