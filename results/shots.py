"""Five supports against one, for runs of a study that were trained at one shot.

    python results/shots.py studies/images lora_train_count=0_seed=510 frozen_train_count=0_seed=510

scores the runs at five shots, on as many episodes as the study did at one (`svfseg eval RUN --shot
5`; a run's result is kept as RUN/shot5.json), and writes shots_reduced.csv beside this file. Two
minutes a run.
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

from svfseg.cli import main

HERE = Path(__file__).parent
COLUMNS = ("miou", "fb_iou")


def scored(run: Path) -> list[dict[str, Any]]:
    """A run's row at one shot, as the study wrote it, and at five."""
    row = json.loads((run / "row.json").read_text())
    kept = run / "shot5.json"
    if not kept.is_file() and main(["eval", str(run), "--shot", "5", "--json", str(kept)]):
        raise SystemExit(f"{run} was not scored")
    (five,) = json.loads(kept.read_text())["seeds"]
    return [
        {"arm": row["arm"], "seed": row["seed"], "shot": shot}
        | {name: round(100 * found[name], 2) for name in COLUMNS}
        for shot, found in ((1, row), (5, five))
    ]


def table(path: Path) -> str:
    """Markdown of what `scored` left: a line a run."""
    lines = ["| run | 1 shot, mIoU | 5 shots, mIoU | 1 shot, FB-IoU | 5 shots, FB-IoU |"]
    lines.append("|---" * 5 + "|")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    for one, five in zip(rows[::2], rows[1::2], strict=True):
        cells = [f"{float(each[name]):.2f}" for name in COLUMNS for each in (one, five)]
        lines.append(f"| {one['arm']}, seed {one['seed']} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("runs", nargs="+")
    asked = parser.parse_args()
    found = [row for name in asked.runs for row in scored(asked.study / "runs" / name)]
    with (HERE / "shots_reduced.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    print(table(HERE / "shots_reduced.csv"))
