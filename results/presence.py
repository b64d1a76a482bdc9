"""From which evidence on a class counts as present: how far few supports are to be trusted.

    python results/presence.py run --root VOC2012
    python results/presence.py table

On the ten classes of Pascal VOC that own_data.py is not about, with two, three and five supports
and three draws: what the supports and the images without the class say, and 20 images with the
class and 20 without. `run` keeps the evidence, a fit a line, in presence.jsonl, and goes on where
it was stopped (twenty minutes on two cores); `table` cuts it where `presence_threshold` does with
several values of PRIOR.
"""

import argparse
import itertools
import json
from pathlib import Path
from statistics import mean
from unittest import mock

from svfseg.segmenter import calibration, thresholds
from svfseg.segmenter.thresholds import presence_threshold

ROWS = Path(__file__).parent / "presence.jsonl"
SHOTS, DRAWS, PRIORS = (2, 3, 5), 3, (0, 1, 2, 4, 8)


def run(root: str) -> None:
    from own_data import CLASSES, drawn, fitted

    from svfseg.data.pascal import pascal5i

    index = pascal5i(root, ("val",))
    done = {(row["class"], row["shot"], row["draw"]) for row in rows()}
    others = [c for c in range(1, 21) if c not in CLASSES]
    for draw, shot, class_id in itertools.product(range(DRAWS), SHOTS, others):
        if (class_id, shot, draw) in done:
            continue
        supports, having, without = drawn(index, class_id, shot, draw)
        with mock.patch.object(
            calibration, "presence_threshold", wraps=presence_threshold
        ) as asked:
            segmenter, _ = fitted(index, class_id, supports, "none")
        there, missing = ([round(e, 5) for e in values] for values in asked.call_args.args)
        line = {
            "class": class_id, "shot": shot, "draw": draw, "there": there, "missing": missing,
            "having": [ask(segmenter, index.load(i), class_id) for i in having],
            "without": [ask(segmenter, index.load(i), class_id)[0] for i in without],
        }  # fmt: skip
        with ROWS.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(class_id, shot, draw, flush=True)


def ask(segmenter, sample, class_id: int) -> tuple[float, int, int, int]:
    """Evidence, and pixels of the intersection, the union and the class, of one image."""
    (seen,) = segmenter.predictor_.predict_maps([sample.image], segmenter.features_)
    inside = seen.maps[0].numpy() > segmenter.thresholds_[1].threshold
    target, known = sample.mask == class_id, sample.mask != 255
    union = int(((inside | target) & known).sum())
    return round(float(seen.presence[0]), 5), int((inside & target).sum()), union, int(target.sum())


def rows() -> list[dict]:
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.is_file() else []


def scores(shot: int, prior: int) -> tuple[float, float, float]:
    """Means over classes and draws, in %: wrongly empty, left empty, IoU on images with it."""
    lost, left, iou = [], [], []
    for row in rows():
        if row["shot"] != shot:
            continue
        with mock.patch.object(thresholds, "PRIOR", prior):
            cut = presence_threshold(row["there"], row["missing"])
        seen = [each for each in row["having"] if each[0] >= cut]
        missed = [each for each in row["having"] if each[0] < cut]
        lost.append(len(missed) / len(row["having"]))
        left.append(mean(evidence < cut for evidence in row["without"]))
        union = sum(each[2] for each in seen) + sum(each[3] for each in missed)
        iou.append(sum(each[1] for each in seen) / union)
    return 100 * mean(lost), 100 * mean(left), 100 * mean(iou)


def table() -> str:
    text = [
        "| supports | weight | with it: wrongly empty | without it: left empty | IoU, % |",
        "|---|---|---|---|---|",
    ]
    for shot, prior in itertools.product(SHOTS, PRIORS):
        lost, left, iou = scores(shot, prior)
        text.append(f"| {shot} | {prior} | {lost:.1f} % | {left:.1f} % | {iou:.1f} |")
    return "\n".join(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--root", default="VOC2012")
    given = parser.parse_args()
    if given.what == "run":
        run(given.root)
    else:
        print(table())
