"""Keep what a study found: its tables beside this file, without paths, and its plots.

    python results/study.py studies/strategies strategies_reduced
    python results/study.py studies/steps steps_reduced
    python results/study.py studies/images images_reduced --by data.train_count

copies results.csv, search.csv, curves.csv and summary.md of a study's folder to
results/NAME*.csv and .md, and draws docs/images/NAME.svg: base and novel mIoU against the steps,
where there are curves (and NAME_gaps.csv and .svg: the same minus the first arm's, of the same
seed and step, and how much more novel classes gained than base classes), or against a setting of
the grid (0 images are all). With --by it also writes NAME_by.csv: for each value and arm the mean,
and the paired difference to the first arm.
"""

import argparse
import csv
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

HERE = Path(__file__).parent
IMAGES = HERE.parent / "docs" / "images"
GAPS = ("base_miou", "novel_miou", "novel_less_base")
PARTS = {"results.csv": ".csv", "search.csv": "_search.csv", "summary.md": ".md"}
TITLES = {
    "base_miou": "base classes",
    "novel_miou": "novel classes",
    "miou": "novel classes",
    "novel_less_base": "novel minus base classes",
}
Row = dict[str, str]


def keep(folder: Path, name: str, by: str | None) -> None:
    for part, end in PARTS.items():
        if (folder / part).is_file():
            shutil.copyfile(folder / part, HERE / f"{name}{end}")
    curves = read(folder / "curves.csv")
    if by is not None:
        rows = read(folder / "results.csv")
        values = sorted({row[by] for row in rows}, key=lambda v: float(v) or float("inf"))
        write(HERE / f"{name}_by.csv", differences(folder, rows, by, values))
        draw(rows, IMAGES / f"{name}.svg", ("base_miou", "miou"), values, lambda row: row[by], by)
    elif len({row["step"] for row in curves}) > 1:  # one point is no curve
        shutil.copyfile(folder / "curves.csv", HERE / f"{name}_curves.csv")
        steps = sorted({row["step"] for row in curves}, key=int)
        draw(
            curves, IMAGES / f"{name}.svg", ("base_miou", "novel_miou"), steps,
            lambda row: row["step"], "steps",
        )  # fmt: skip
        paired = gaps(curves)
        write(HERE / f"{name}_gaps.csv", paired)
        draw(
            paired, IMAGES / f"{name}_gaps.svg", GAPS, steps,
            lambda row: row["step"], "steps", f"mIoU minus {curves[0]['arm']}'s, points", 1,
        )  # fmt: skip


def gaps(curves: Sequence[Row]) -> list[Row]:
    """Every arm's mIoU minus the first arm's, of the same seed after the same steps.

    Where novel_less_base is negative, an arm gained on base classes what it did not on novel ones.
    """
    first = curves[0]["arm"]
    plain = {(row["seed"], row["step"]): row for row in curves if row["arm"] == first}
    found = []
    for row in curves:
        if row["arm"] != first:
            same = plain[row["seed"], row["step"]]
            base, novel = (float(row[part]) - float(same[part]) for part in GAPS[:2])
            gained = (base, novel, novel - base)
            found.append(row | {part: f"{gap:.6f}" for part, gap in zip(GAPS, gained, strict=True)})
    return found


def gap_table(name: str, part: str = "novel_miou") -> str:
    """Markdown of a column of NAME_gaps.csv, a run a number."""
    rows = read(HERE / f"{name}_gaps.csv")
    steps = list(dict.fromkeys(row["step"] for row in rows))
    lines = [
        f"| minus frozen, after steps | {' | '.join(steps)} |",
        "|---" * (len(steps) + 1) + "|",
    ]
    for arm in dict.fromkeys(row["arm"] for row in rows):
        cells = [
            ", ".join(
                f"{100 * float(row[part]):+.1f}"
                for row in rows
                if (row["arm"], row["step"]) == (arm, step)
            )
            for step in steps
        ]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def read(path: Path) -> list[Row]:
    return list(csv.DictReader(path.read_text().splitlines())) if path.is_file() else []


def write(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def differences(folder: Path, rows: list[Row], by: str, values: Sequence[str]) -> list[Row]:
    """A row for each value and arm: mIoU of its runs, and against the first arm at that value."""
    from svfseg.lab.bootstrap import Records, difference

    def records(row: Row) -> Records:
        run = folder / "runs" / f"{row['arm']}_{by.split('.')[-1]}={row[by]}_seed={row['seed']}"
        return Records.of(json.loads((run / "episodes.json").read_text()))

    first = rows[0]["arm"]
    found = []
    for value in values:
        here = [row for row in rows if row[by] == value]
        reference = {row["seed"]: records(row) for row in here if row["arm"] == first}
        for arm in dict.fromkeys(row["arm"] for row in here):
            mine = [row for row in here if row["arm"] == arm]
            line = {
                by: value, "arm": arm, "runs": str(len(mine)),
                "base_miou": f"{100 * mean(float(row['base_miou']) for row in mine):.2f}",
                "miou": f"{100 * mean(float(row['miou']) for row in mine):.2f}",
                "least": f"{100 * min(float(row['miou']) for row in mine):.2f}",
                "most": f"{100 * max(float(row['miou']) for row in mine):.2f}",
                "difference": "", "low": "", "high": "",
            }  # fmt: skip
            if arm != first:
                gap = difference([(records(row), reference[row["seed"]]) for row in mine])
                line |= {
                    key: f"{100 * number:+.2f}"
                    for key, number in zip(
                        ("difference", "low", "high"), (gap.value, gap.low, gap.high), strict=True
                    )
                }
            found.append(line)
    return found


def table_by(name: str, title: str) -> str:
    """Markdown of NAME_by.csv."""
    rows = read(HERE / f"{name}_by.csv")
    by = next(iter(rows[0]))
    titles = (title, "arm", "base mIoU", "mIoU", "runs, least to most", "difference",
              "95 % interval")  # fmt: skip
    lines = [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for row in rows:
        gap = f"{row['low']} to {row['high']}" if row["low"] else ""
        value = "all" if row[by] == "0" else row[by]
        lines.append(
            f"| {value} | {row['arm']} | {row['base_miou']} | {row['miou']} | "
            f"{row['least']} to {row['most']} | {row['difference']} | {gap} |"
        )
    return "\n".join(lines)


def draw(
    rows: Sequence[Row],
    path: Path,
    columns: Sequence[str],
    values: Sequence[str],
    value_of: Callable[[Row], str],
    label: str,
    height: str = "mIoU, %",
    color: int = 0,
) -> None:
    """A plot a column: a line an arm, the band from its least to its greatest run."""
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams["svg.hashsalt"] = "svfseg"  # drawn again, a plot is the same file
    figure = Figure(figsize=(1.2 + 3.9 * len(columns), 3.4), layout="constrained")
    plots = figure.subplots(1, len(columns), sharex=True)
    numbers = all(float(v) > 0 for v in values)
    places = {v: float(v) if numbers else i for i, v in enumerate(values)}
    for axes, column in zip(plots, columns, strict=True):
        for number, arm in enumerate(dict.fromkeys(row["arm"] for row in rows), start=color):
            points: dict[float, list[float]] = defaultdict(list)
            for row in rows:
                if row["arm"] == arm and row[column]:
                    points[places[value_of(row)]].append(100 * float(row[column]))
            at = sorted(points)
            axes.plot(
                at, [mean(points[x]) for x in at], f"C{number}", marker="o", markersize=3, label=arm
            )
            low, high = ([edge(points[x]) for x in at] for edge in (min, max))
            axes.fill_between(at, low, high, color=f"C{number}", alpha=0.15)
        axes.set_title(TITLES[column], fontsize=10)
        axes.set_xlabel({"data.train_count": "training images"}.get(label, label))
        if not numbers:
            axes.set_xticks(list(places.values()), ["all" if v == "0" else v for v in values])
        axes.grid(alpha=0.25, linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    plots[0].set_ylabel(height)
    figure.legend(*plots[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    parser.add_argument("--by")
    asked = parser.parse_args()
    keep(asked.folder, asked.name, asked.by)
