"""From which evidence on a class counts as present: how far few supports are to be trusted.

    python results/presence.py --root VOC2012

On the ten classes of Pascal VOC that own_data.py is not about, with two, three and five supports
and three draws: 20 images with the class and 20 without, cut where `presence_cut` puts it with
several values of PRIOR. Rows in presence.csv; ten minutes on two cores.
"""

import argparse
import csv
from pathlib import Path
from unittest import mock

import numpy as np
from own_data import CLASSES, drawn, fitted

from svfseg import calibration, rules
from svfseg.calibration import presence_cut
from svfseg.data.pascal import pascal5i

ROWS = Path(__file__).parent / "presence.csv"
SHOTS, DRAWS, PRIORS = (2, 3, 5), 3, (0, 1, 2, 4, 8)


def run(root: str) -> None:
    index = pascal5i(root, ("val",))
    wrongly_empty, left_empty, iou = ({(s, p): [] for s in SHOTS for p in PRIORS} for _ in range(3))
    for class_id in sorted(set(range(1, 21)) - set(CLASSES)):
        for shot in SHOTS:
            for draw in range(DRAWS):
                supports, queries, others = drawn(index, class_id, shot, draw)
                with mock.patch.object(rules, "presence_cut", wraps=presence_cut) as asked:
                    segmenter, _ = fitted(index, class_id, supports, "none")
                seen = [ask(segmenter, index.load(i), class_id) for i in queries]
                without = [ask(segmenter, index.load(i), class_id)[0] for i in others]
                for prior in PRIORS:
                    with mock.patch.object(calibration, "PRIOR", prior):
                        cut = presence_cut(*asked.call_args.args)
                    there = [s for s in seen if s[0] >= cut]
                    lost = [s for s in seen if s[0] < cut]
                    union = sum(s[2] for s in there) + sum(s[3] for s in lost)
                    wrongly_empty[shot, prior].append(len(lost) / len(seen))
                    left_empty[shot, prior].append(np.mean([e < cut for e in without]))
                    iou[shot, prior].append(sum(s[1] for s in there) / union)
        print(f"class {class_id} done", flush=True)
    with ROWS.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("shot", "prior", "wrongly_empty", "worst", "left_empty", "iou"))
        for key, lost in wrongly_empty.items():
            row = np.mean(lost), max(lost), np.mean(left_empty[key]), np.mean(iou[key])
            writer.writerow((*key, *(round(float(value), 4) for value in row)))
    print(ROWS.read_text())


def ask(segmenter, sample, class_id: int) -> tuple[float, int, int, int]:
    """Evidence, and pixels of the intersection, the union and the class, of one image."""
    (seen,) = segmenter.outliner_.look([sample.image], segmenter.views_)
    inside = seen.maps[0].numpy() > segmenter.rules_[1].threshold
    target, known = sample.mask == class_id, sample.mask != 255
    union = int(((inside | target) & known).sum())
    return float(seen.evidence[0]), int((inside & target).sum()), union, int(target.sum())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default="VOC2012")
    run(parser.parse_args().root)
