"""Keep what a study found: its tables beside this file, without paths, and its plots.

    python results/study.py studies/strategies strategies_reduced
    python results/study.py studies/steps steps_reduced

copies results.csv, search.csv, curves.csv and summary.md of a study's folder to
results/NAME*.csv and .md, and draws docs/images/NAME.svg from the curves where there are any.
"""

import csv
import shutil
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

HERE = Path(__file__).parent
IMAGES = HERE.parent / "docs" / "images"
PARTS = {"results.csv": ".csv", "search.csv": "_search.csv", "summary.md": ".md"}


def keep(folder: Path, name: str) -> None:
    for part, end in PARTS.items():
        if (folder / part).is_file():
            shutil.copyfile(folder / part, HERE / f"{name}{end}")
    rows = list(csv.DictReader((folder / "curves.csv").open()))
    if len({row["step"] for row in rows}) > 1:  # one point is no curve
        shutil.copyfile(folder / "curves.csv", HERE / f"{name}_curves.csv")
        draw(rows, IMAGES / f"{name}.svg")


def draw(rows: list[dict[str, str]], path: Path) -> None:
    """Base and novel mIoU by step: a line an arm, the band from its least to its greatest run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    both = figure.subplots(1, 2, sharex=True)
    for axes, column, title in zip(
        both, ("base_miou", "novel_miou"), ("base classes", "novel classes"), strict=True
    ):
        for arm in dict.fromkeys(row["arm"] for row in rows):
            points: dict[int, list[float]] = defaultdict(list)
            for row in rows:
                if row["arm"] == arm and row[column]:
                    points[int(row["step"])].append(100 * float(row[column]))
            steps = sorted(points)
            axes.plot(steps, [mean(points[s]) for s in steps], marker="o", markersize=3, label=arm)
            low, high = ([edge(points[s]) for s in steps] for edge in (min, max))
            axes.fill_between(steps, low, high, alpha=0.15)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("steps")
        axes.grid(alpha=0.25, linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    both[0].set_ylabel("mIoU, %")
    both[0].legend(frameon=False, fontsize=9)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    keep(Path(sys.argv[1]), sys.argv[2])
