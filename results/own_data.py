"""Ten classes of Pascal VOC as somebody's own data: one to five supports, then 40 images.

    python results/own_data.py run --root VOC2012 --draw 0
    python results/own_data.py run --root VOC2012 --draw 1
    python results/own_data.py time --root VOC2012
    python results/own_data.py table

The model is the one that comes with svfseg: it was trained on no photograph, and these classes
were not looked at when its presets were found (the other ten were). `run` goes on where it was
stopped; a row a fit in own_data.csv. `time` wants an idle machine: seconds.csv.
"""

import argparse
import csv
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from svfseg import FewShotSegmenter
from svfseg.data.pascal import pascal5i
from svfseg.segmenter.calibration import probabilities

HERE = Path(__file__).parent
ROWS, SECONDS = HERE / "own_data.csv", HERE / "own_data_seconds.csv"
CLASSES = (2, 4, 6, 7, 9, 11, 13, 14, 16, 18)  # of all four folds
MODES = ("none", "svf", "norm", "lora", "full")
SHOTS, QUERIES, STEPS = (1, 5), 20, 20
FIELDS = (
    "class", "shot", "draw", "adapt", "iou", "iou_never_empty", "left_empty", "wrongly_empty",
    "seconds", "bytes", "command",
)  # fmt: skip


def drawn(index, class_id: int, shot: int, draw: int):
    """Supports, images with the class and images without, of the val list."""
    rng = np.random.default_rng((class_id, shot, draw))
    having = [i for i, p in enumerate(index.pixels) if p.get(class_id, 0) >= index.min_pixels]
    without = [i for i, p in enumerate(index.pixels) if class_id not in p]
    chosen = rng.choice(having, shot + QUERIES, replace=False)
    return chosen[:shot], chosen[shot:], rng.choice(without, QUERIES, replace=False)


def fitted(
    index, class_id: int, supports, mode: str, steps: int | None = STEPS
) -> tuple[FewShotSegmenter, float]:
    samples = [index.load(i) for i in supports]
    masks = [np.where(s.mask == 255, 255, s.mask == class_id).astype(np.uint8) for s in samples]
    adapt = None if mode == "none" else mode
    # loads the network, which is not a part of fitting
    segmenter = FewShotSegmenter.from_pretrained(adapt=adapt, steps=steps, device="cpu")
    start = time.perf_counter()
    segmenter.fit([s.image for s in samples], masks)
    return segmenter, time.perf_counter() - start


def run(root: str, draw: int) -> None:
    index = pascal5i(root, ("val",))
    done = {tuple(r[f] for f in FIELDS[:4]) for r in rows()}
    for shot in SHOTS:
        for class_id in CLASSES:
            name = index.classes[class_id - 1]
            supports, queries, others = drawn(index, class_id, shot, draw)
            for mode in MODES:
                if (name, str(shot), str(draw), mode) in done:
                    continue
                segmenter, seconds = fitted(index, class_id, supports, mode)
                rule = segmenter.thresholds_[1]
                sums = np.zeros((2, 2))
                lost = left = 0
                for position in queries:
                    sample = index.load(position)
                    (seen,) = segmenter.predictor_.predict_maps([sample.image], segmenter.features_)
                    share = probabilities(seen.logits, [(rule.slope, rule.shift)])[0]
                    inside = share.numpy() > rule.threshold
                    target, known = sample.mask == class_id, sample.mask != 255
                    there = seen.presence[0] >= rule.presence
                    lost += not there
                    for row, answer in enumerate((inside & there, inside)):
                        sums[row] += (answer & target).sum(), ((answer | target) & known).sum()
                for position in others:
                    left += not segmenter.predict(index.load(position).image).mask.any()
                with tempfile.TemporaryDirectory() as folder:
                    size = segmenter.save(Path(folder) / "task.svf").stat().st_size
                write(
                    name, shot, draw, mode, *(sums[:, 0] / sums[:, 1]).round(4), left / QUERIES,
                    lost / QUERIES, round(seconds, 1), size,
                    f"python results/own_data.py run --root VOC2012 --draw {draw}",
                )  # fmt: skip


def clock(root: str) -> None:
    """Seconds of fitting five supports, steps chosen by leaving out, and of one query: medians."""
    index = pascal5i(root, ("val",))
    supports, queries, _ = drawn(index, CLASSES[0], 5, 0)
    with SECONDS.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("adapt", "fit_seconds", "query_seconds", "command"))
        for mode in MODES:
            fits = []
            for _ in range(3):
                segmenter, seconds = fitted(index, CLASSES[0], supports, mode, None)
                fits.append(seconds)
            asked = []
            for position in queries[:9]:
                image = index.load(position).image
                start = time.perf_counter()
                segmenter.predict(image)
                asked.append(time.perf_counter() - start)
            middle = (round(statistics.median(fits), 2), round(statistics.median(asked), 3))
            writer.writerow((mode, *middle, "python results/own_data.py time --root VOC2012"))
            print(mode, *middle, flush=True)


def rows() -> list[dict[str, str]]:
    return list(csv.DictReader(ROWS.read_text().splitlines())) if ROWS.is_file() else []


def write(*values: object) -> None:
    new = not ROWS.is_file()
    with ROWS.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(FIELDS)
        writer.writerow(values)
    print(*values[:-1], flush=True)


def tables() -> str:
    """Means over classes and draws, with 95 % bootstrap intervals over (class, draw)."""
    text = [
        "| supports | adapt | IoU, % | against episodic | IoU, never empty "
        "| without it: left empty | with it: wrongly empty | file, kB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    found = rows()
    for shot in SHOTS:
        plain = _of(found, shot, "none")
        for mode in MODES:
            mine = _of(found, shot, mode)
            if not mine:
                continue
            keys = sorted(mine)
            iou = np.array([float(mine[k]["iou"]) for k in keys])
            gain = np.array([float(mine[k]["iou"]) - float(plain[k]["iou"]) for k in keys])
            against = (
                "" if mode == "none" else f"{100 * gain.mean():+.1f} ({_interval(gain, True)})"
            )
            shown = [
                100 * np.mean([float(mine[k][f]) for k in keys])
                for f in ("iou_never_empty", "left_empty", "wrongly_empty")
            ]
            size = np.mean([float(mine[k]["bytes"]) for k in keys]) / 1000
            text.append(
                f"| {shot} | {'episodic' if mode == 'none' else mode} "
                f"| {100 * iou.mean():.1f} ({_interval(iou)}) | {against} | {shown[0]:.1f} "
                f"| {shown[1]:.0f} % | {shown[2]:.0f} % | {size:,.0f} |"
            )
    return "\n".join(text)


def class_table() -> str:
    """IoU of each class, episodic, means over draws."""
    text = ["| class | 1 support | 5 supports |", "|---|---|---|"]
    found = rows()
    for name in dict.fromkeys(row["class"] for row in found):
        cells = [
            np.mean([float(r["iou"]) for k, r in _of(found, shot, "none").items() if k[0] == name])
            for shot in SHOTS
        ]
        text.append(f"| {name} | {100 * cells[0]:.1f} | {100 * cells[1]:.1f} |")
    return "\n".join(text)


def second_table() -> str:
    text = ["| adapt | fit, 5 supports, s | a query, s |", "|---|---|---|"]
    for row in csv.DictReader(SECONDS.read_text().splitlines()):
        name = "episodic" if row["adapt"] == "none" else row["adapt"]
        text.append(f"| {name} | {row['fit_seconds']} | {row['query_seconds']} |")
    return "\n".join(text)


def _of(found, shot: int, mode: str):
    return {
        (r["class"], r["draw"]): r for r in found if r["shot"] == str(shot) and r["adapt"] == mode
    }


def _interval(values: np.ndarray, signed: bool = False) -> str:
    rng = np.random.default_rng(0)
    means = rng.choice(values, (2000, len(values))).mean(axis=1)
    low, high = 100 * np.quantile(means, (0.025, 0.975))
    return f"{low:+.1f} to {high:+.1f}" if signed else f"{low:.1f} to {high:.1f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("run", "time", "table"))
    parser.add_argument("--root", default="VOC2012")
    parser.add_argument("--draw", type=int, default=0)
    given = parser.parse_args()
    if given.what == "run":
        run(given.root, given.draw)
    elif given.what == "time":
        clock(given.root)
    else:
        print(tables(), class_table(), second_table(), sep="\n\n")
