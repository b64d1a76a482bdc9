"""The figures in the sentences of docs/study.md and docs/own-data.md are those of results/.

A part of a page is found by a file or command that it names, so that its words may change. All
numbers of its sentences are known: a figure that follows from rows must be there, as often as it
is listed, and any other number must be one of the settings. Tables have tests of their own.
"""

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from itertools import chain, pairwise
from pathlib import Path
from statistics import mean

import pytest

ROOT = Path(__file__).resolve().parents[1]
Rows = list[dict[str, str]]
NUMBER = re.compile(r"(?<![\w.,\-/])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?![\w/]|\.\d)")


@cache
def _read(name: str) -> Rows:
    return list(csv.DictReader((ROOT / "results" / f"{name}.csv").read_text().splitlines()))


def rows(name: str, **wanted: str) -> Rows:
    """Rows of a table whose columns have these values."""
    found = [r for r in _read(name) if all(r[k] == v for k, v in wanted.items())]
    assert found, (name, wanted)
    return found


def points(found: Rows, column: str) -> list[float]:
    """A column of shares in [0, 1], in points."""
    return [100 * float(row[column]) for row in found]


def parts(page: str) -> list[str]:
    """A page cut at its headings."""
    return re.split(r"^#+ .*$", (ROOT / "docs" / page).read_text(), flags=re.MULTILINE)


def part_with(page: str, marker: str) -> str:
    (found,) = [part for part in parts(page) if marker in part]
    return found


def prose(part: str) -> str:
    """The sentences of a part: without code, tables and addresses of links."""
    part = re.sub(r"```.*?```", "", part, flags=re.DOTALL)
    lines = [line for line in part.splitlines() if not line.startswith(("    ", "|", "\t"))]
    text = re.sub(r"\]\([^)]*\)", "]", "\n".join(lines))
    return re.sub(r"`[^`]*`", "", text, flags=re.DOTALL)


def faults(text: str, figures: Iterable[str], settings: Iterable[str]) -> list[str]:
    """What is wrong with the numbers of sentences: figures that are missing, unknown numbers."""
    present, expected = Counter(NUMBER.findall(text)), Counter(figures)
    missing = [
        f"{figure}: found {present[figure]} times, expected {count}"
        for figure, count in expected.items()
        if present[figure] < count
    ]
    unknown = set(present) - set(expected) - set(settings)
    return missing + [f"{number}: neither a figure nor a setting" for number in sorted(unknown)]


# what each part says, from the rows


def difference(name: str, arm: str, column: str = "miou", **wanted: str) -> float:
    """Points of an arm above the frozen backbone, means over the runs."""
    mine, frozen = (mean(points(rows(name, arm=a, **wanted), column)) for a in (arm, "frozen"))
    return mine - frozen


def spread(name: str, arm: str, **wanted: str) -> float:
    scores = points(rows(name, arm=arm, **wanted), "miou")
    return max(scores) - min(scores)


def strategies() -> list[str]:
    name = "strategies_reduced"
    arms = list(dict.fromkeys(row["arm"] for row in _read(name)))
    means = [mean(points(rows(name, arm=arm), "miou")) for arm in arms]
    lora = sorted(points(rows(name, arm="lora"), "miou"))
    best = {
        arm: max(points(rows(f"{name}_search", arm=arm), "base_miou"))
        for arm in ("frozen", "lora", "adapter")
    }
    frozen = max(points(rows(f"{name}_search", arm="frozen"), "base_miou"))
    shots = {
        (row["arm"], row["seed"], row["shot"]): float(row["miou"]) for row in _read("shots_reduced")
    }
    gains = [v - shots[a, s, "1"] + 1e-9 for (a, s, n), v in shots.items() if n == "5"]
    return [
        f"{max(spread(name, arm) for arm in arms if arm != 'lora'):.0f}",
        f"{lora[1] - lora[0]:.0f}", f"{lora[0]:.1f}", f"{lora[1]:.1f}",
        f"{max(means) - min(means):.0f}",
        f"{-difference(name, 'svf'):.1f}", f"{difference(name, 'adapter'):.1f}",
        f"{difference(name, 'svf U'):.1f}",
        f"{difference(name, 'adapter', seed='321'):.0f}",
        f"{-difference(name, 'lora', seed='321'):.0f}",
        f"{frozen:.1f}", f"{best['lora']:.0f}", f"{best['adapter']:.0f}", f"{best['frozen']:.0f}",
        f"{min(gains):.1f}", f"{max(gains):.1f}",
    ]  # fmt: skip


def images() -> list[str]:
    name, count = "images_reduced", "data.train_count"
    arms = list(dict.fromkeys(row["arm"] for row in _read(name)))
    by = {(a, n): difference(name, a, **{count: n}) for a in arms for n in ("100", "300", "0")}
    lora = [spread(name, "lora", **{count: n}) for n in ("100", "300", "0")]
    base = [
        mean(points(rows(name, arm=a, **{count: n}), "base_miou"))
        for a in arms
        for n in ("100", "0")
    ]
    gained = [
        mean(points(rows(name, arm=a, **{count: "0"}), "miou"))
        - mean(points(rows(name, arm=a, **{count: "300"}), "miou"))
        for a in arms
    ]
    return [
        f"{by['full', '100']:.1f}", f"{-by['full', '300']:.1f}",
        f"{-by['svf', '300']:.1f}", f"{-by['svf', '0']:.1f}",
        f"{min(lora):.0f}", f"{max(lora):.0f}", f"{min(base):.0f}", f"{max(base):.0f}",
        f"{min(gained):.0f}", f"{max(gained):.0f}",
    ]  # fmt: skip


def late(name: str, arm: str, column: str, step: int) -> dict[str, list[float]]:
    """Points from a step on, by seed."""
    found: dict[str, list[float]] = {}
    for row in rows(name, arm=arm):
        if int(row["step"]) >= step:
            found.setdefault(row["seed"], []).append(100 * float(row[column]))
    return found


def late_mean(name: str, arm: str, column: str, step: int) -> float:
    return mean(chain(*late(name, arm, column, step).values()))


def interval_of_two(values: Iterable[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of two numbers by Student's t."""
    one, two = values
    half = 12.706 * abs(one - two) / 2
    return (one + two) / 2 - half, (one + two) / 2 + half


def swings(name: str, column: str, first: int = 0) -> list[float]:
    """The largest change of each run from one point to the next, from a point on."""
    runs: dict[tuple[str, str], list[float]] = {}
    for row in _read(name):
        runs.setdefault((row["arm"], row["seed"]), []).append(100 * float(row[column]))
    return [max(abs(b - a) for a, b in pairwise(run[first:])) for run in runs.values()]


def steps() -> list[str]:
    high, name = "steps_high_rate_curves", "steps_reduced_gaps"
    peak = max(_read(high), key=lambda row: float(row["novel_miou"]))
    base = points(_read(high), "base_miou")
    now = [*swings("steps_reduced_curves", "base_miou", 1),
           *swings("steps_reduced_curves", "novel_miou", 1)]  # fmt: skip
    svf = {seed: mean(v) for seed, v in late(name, "svf", "novel_miou", 450).items()}
    low, high_end = interval_of_two(svf.values())
    lora = min(points(rows(name, arm="lora"), "novel_miou"))
    two = [f"{svf['321']:.1f}", f"{svf['510']:.1f}"]
    return [
        f"{min(base):.0f}", *2 * [f"{max(base):.0f}"],
        f"{math.floor(min(swings(high, 'base_miou')))}",
        f"{100 * float(peak['novel_miou']):.0f}", f"{int(peak['step']):,}",
        f"{min(now):.0f}", f"{max(now):.0f}",
        f"{late_mean(name, 'svf', 'novel_miou', 450):.1f}", *2 * two,
        f"{late_mean(name, 'svf', 'base_miou', 450):.1f}",
        f"{late_mean(name, 'full', 'novel_miou', 450):.1f}",
        f"{-lora:.0f}", f"{low:.1f}", f"{high_end:+.1f}",
    ]  # fmt: skip


def few_images() -> list[str]:
    name = "steps_few_reduced_gaps"

    def of(arm: str, column: str) -> float:
        return late_mean(name, arm, column, 600)

    fallen = [mean(v) for v in late(name, "full 0.001", "novel_miou", 600).values()]
    leaning = [
        interval_of_two(mean(v) for v in late(name, arm, "novel_less_base", 600).values())
        for arm in ("full 0.0001", "full 0.001")
    ]
    all_images = max(
        abs(late_mean("steps_reduced_gaps", arm, "novel_less_base", 450))
        for arm in ("svf", "full", "lora")
    )
    return [
        f"{-of('full 0.0001', 'novel_less_base'):.1f}", f"{-of('full 0.001', 'novel_less_base'):.1f}",
        f"{of('full 0.0001', 'base_miou'):.1f}", f"{of('full 0.0001', 'novel_miou'):.1f}",
        f"{-of('full 0.001', 'novel_miou'):.1f}", *(f"{-v:.1f}" for v in fallen),
        f"{-of('svf 0.002', 'novel_less_base'):.1f}", f"{of('svf 0.02', 'novel_less_base'):.1f}",
        f"{of('svf 0.002', 'base_miou'):.1f}", *2 * [f"{of('svf 0.002', 'novel_miou'):.1f}"],
        f"{-of('svf 0.02', 'base_miou'):.1f}", f"{-of('svf 0.02', 'novel_miou'):.1f}",
        f"{all_images:.1f}",
        *(f"{low:.1f}" for low, _ in leaning), *(f"{high:+.1f}" for _, high in leaning),
    ]  # fmt: skip


def analyses() -> dict[str, dict]:
    found: dict[str, dict] = json.loads((ROOT / "results" / "analysis_reduced.json").read_text())
    return found


def rates() -> list[str]:
    name, gaps = "ablation_rate_reduced", "rate_steps_reduced_gaps"
    direct = [mean(points(rows(name, arm=f"direct {r}"), "miou")) for r in ("0.001", "0.01", "0.1")]
    (layer3,) = (r for r in analyses()["250 steps"]["stages"] if r["stage"] == 3)
    low, _, high, largest = layer3["start"]
    arms = ("direct 0.002", "direct 0.02", "relative 0.002", "relative 0.02")
    wild = points(rows(gaps, arm="direct 0.2"), "novel_miou")
    early = [
        -min(points(rows(gaps, arm=arm, step="150"), "novel_miou"))
        for arm in ("relative 0.02", "direct 0.02")
    ]
    return [
        f"{math.ceil(10 * (max(direct) - min(direct))) / 10:.1f}",
        f"{-difference(name, 'relative 0.1'):.1f}",
        f"{-round(difference(name, 'direct 0.1'), 2) + 0.001:.1f}",
        f"{low:.1f}", f"{high:.1f}", f"{largest:.1f}", f"{largest**2:.0f}",
        *(f"{late_mean(gaps, arm, 'novel_miou', 450):.1f}" for arm in arms),
        f"{max(wild):.0f}", f"{-min(wild):.0f}", *(f"{v:.0f}" for v in early),
    ]  # fmt: skip


def what_was_learned() -> list[str]:
    shares = []
    for run in ("900 steps, seed 510", "900 steps"):
        (row,) = (r for r in analyses()[run]["focus"] if r["stage"] == "layer3")
        shares.append(100 * row["change"][0] / row["before"][0])
    return [f"{share:.1f}" for share in shares]


def bam() -> list[str]:
    table = {
        (cells[0], cells[1]): float(cells[2])
        for cells in (
            [cell.strip() for cell in line.strip("| ").split("|")]
            for line in part_with("study.md", "bam_reduced.csv").splitlines()
            if line.startswith(("| bam", "| baseline"))
        )
    }
    tuned = "svf, stages 2 to 4"
    added, classifier = (
        table["bam", strategy] - table["baseline", strategy] for strategy in (tuned, "frozen")
    )
    return [
        f"{added:.1f}", f"{classifier:.1f}", f"{added - classifier:.0f}",
        f"{difference('bam_reduced', 'svf'):.1f}",
    ]  # fmt: skip


def own_data() -> list[str]:
    def of(column: str, mode: str, shot: str) -> float:
        return mean(float(row[column]) for row in rows("own_data", adapt=mode, shot=shot))

    gained = 100 * (of("iou", "none", "5") - of("iou", "none", "1"))
    smaller = (of("bytes", "svf", "5") - of("bytes", "none", "5")) / 1000
    full = (of("bytes", "full", "1") - of("bytes", "none", "1")) / 1e6
    return [f"{gained:.0f}", f"{smaller:.0f}", f"{full:.1f}"]


def far_domain() -> list[str]:
    def of(mode: str, steps_: str, times: float) -> float:
        found = rows("far_domain", part="squares", shot="1", adapt=mode, steps=steps_)
        rates_ = sorted({float(row["lr"]) for row in found})
        lr = rates_[int(times)]
        return 100 * mean(float(row["iou"]) for row in found if float(row["lr"]) == lr)

    plain = of("none", "0", 0)
    svf, lora, full = ([of(m, "100", i) - plain for i in (0, 1)] for m in ("svf", "lora", "full"))
    return [
        f"{plain:.0f}", f"{min(svf):.0f}", f"{max(svf):.0f}", f"{min(lora):.0f}",
        f"{max(lora):.0f}", f"{-min(full):.0f}",
    ]  # fmt: skip


# (page, what the part names): figures of its sentences, and the other numbers in them
PARTS: dict[tuple[str, str], tuple[Callable[[], list[str]], str]] = {
    ("study.md", "strategies_reduced_search.csv"): (
        strategies, "0 1 2 4 5 16 25 36 100 128 150 225 250 321 510 1,000",
    ),
    ("study.md", "images_reduced_by.csv"): (images, "100 250 300"),
    ("study.md", "steps_high_rate_curves.csv"): (
        steps, "0.05 2 150 250 300 321 450 510 900 1,200 1,800",
    ),
    ("study.md", "steps_few_reduced_gaps.csv"): (few_images, "48 100 321 510 600 1,200"),
    ("study.md", "rate_steps_reduced_gaps.csv"): (
        rates, "0.001 0.002 0.01 0.02 0.1 0.2 1 150 250 300 321 450 510",
    ),
    ("study.md", "analysis_reduced.json"): (what_was_learned, "0.01 0.002 95 100 250 900"),
    # the base learner's score and the generalized one have no rows
    ("study.md", "bam_reduced.csv"): (
        bam, "0 0.9 1 2 3.9 4 4.3 15 28.5 32.1 34.1 150 225 250",
    ),
    ("own-data.md", "(../results/own_data.csv)"): (own_data, "0 16 20 32 95 320"),
    ("own-data.md", "results/far_domain.py"): (
        far_domain, "5 16 20 100 125 128 320 1,024",
    ),
}  # fmt: skip
each_part = pytest.mark.parametrize(("page", "marker"), PARTS, ids=lambda word: str(word))


@each_part
def test_the_figures_of_sentences_are_those_of_the_rows(page: str, marker: str) -> None:
    figures, settings = PARTS[page, marker]
    assert faults(prose(part_with(page, marker)), figures(), settings.split()) == []


@each_part
def test_a_tenfold_figure_would_be_noticed(page: str, marker: str) -> None:
    """Each number of the sentences in turn, ten times as large."""
    make, settings = PARTS[page, marker]
    text, figures = prose(part_with(page, marker)), make()
    changed = 0
    for match in NUMBER.finditer(text):
        word = match.group()
        value = 10 * float(word.replace(",", ""))
        if word in figures and value:
            places = len(word.partition(".")[2])
            sign = "+" if word.startswith("+") else ""
            tenfold = text[: match.start()] + f"{value:{sign},.{places}f}" + text[match.end() :]
            assert faults(tenfold, figures, settings.split()), word
            changed += 1
    assert changed >= sum(float(figure.replace(",", "")) != 0 for figure in set(figures))
