"""Tables of results in the terminal."""

import io
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from svfseg.data.verify import ListReport
from svfseg.lab.evaluation import EvaluationResult


def result_table(result: EvaluationResult) -> str:
    """Show an evaluation: a row per seed, classes in columns."""
    title = (
        f"{result.benchmark}, fold {result.fold}, {result.shot}-shot, "
        f"{result.strategy}, {result.resize}-size masks, % IoU"
    )
    table = Table(title=title)
    classes = list(result.seeds[0].classes)
    for name in ("seed", "episodes", "mIoU", "FB-IoU", *classes):
        table.add_column(name, justify="right")
    for row in result.seeds:
        scores = [row.miou, row.fb_iou, *(row.classes[c] for c in classes)]
        table.add_row(str(row.seed), str(row.episodes), *(f"{100 * s:.2f}" for s in scores))
    pairs = ((result.miou, result.deviation("miou")), (result.fb_iou, result.deviation("fb_iou")))
    cells = [f"{100 * mean:.2f}±{100 * std:.2f}" for mean, std in pairs if std is not None]
    if cells:
        table.add_row("mean±std", "", *cells, *("" for _ in classes))
    notes = []
    if result.generalized is not None:
        shares = ", ".join(f"{k} {100 * v:.2f}" for k, v in result.generalized.items())
        notes.append(f"In one map with the base classes, mIoU %: {shares}.")
    if result.monitor == "test":
        notes.append("The checkpoint was chosen on the test fold: not comparable with honest runs.")
    if result.fold != result.trained_on_fold:
        notes.append(
            f"Trained on fold {result.trained_on_fold}: these classes were seen in training."
        )
    return "\n".join([_rendered(table), *notes])


# What a column's numbers are shown in: a factor and a format, for values above 100.
_UNITS = (("bytes", 1e-6, "{:,.1f} MB"), ("operations", 1e-9, "{:,.1f} G"))


def bench_table(rows: Sequence[dict[str, Any]]) -> str:
    """Lay out the rows of a benchmark: common values on top, one figure per column."""
    tables = [{k: v for k, v in row.items() if k not in ("bars", "arm")} for row in rows]
    names = list(dict.fromkeys(name for row in tables for name in row))
    shared = {
        n for n in names if len(rows) > 1 and all(row.get(n) == tables[0].get(n) for row in tables)
    }
    table = Table(title=", ".join(f"{n} {tables[0][n]}" for n in names if n in shared) or None)
    for name in ("arm", *(n for n in names if n not in shared)):
        table.add_column(name, justify="left" if name == "arm" else "right")
    for row, values in zip(rows, tables, strict=True):
        bars = row.get("bars", {})
        cells = [_cell(n, values.get(n), bars.get(n)) for n in names if n not in shared]
        table.add_row(str(row["arm"]), *cells)
    return _rendered(table, 160)


def _cell(name: str, value: Any, bar: float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return " ".join(f"{k} {v}" for k, v in value.items())
    text = str(value) if isinstance(value, (str, bool, int)) else f"{value:.3f}"
    for word, factor, form in _UNITS:
        if word in name and isinstance(value, (int, float)) and value > 100:  # not a ratio
            text = form.format(value * factor)
    return text if bar is None else f"{text} (bar {bar:.2f})"


def verify_table(reports: Sequence[ListReport]) -> str:
    """Lay out the reports of a benchmark's ``verify`` by list and fold, and by class."""
    table = Table(title="images by fold (a class counts from 2,048 pixels)")
    names = ["list", "images", "fold", "test", "train, base only", "train, all", "problems"]
    compared = any(report.published for report in reports)
    for name in names + ["published test"] * compared:
        table.add_column(name, justify="right")
    for report in reports:
        for fold in range(len(report.test)):
            first = fold == 0
            published = [str(report.published[fold])] if report.published else []
            table.add_row(
                report.name if first else "",
                str(report.images) if first else "",
                str(fold),
                str(report.test[fold]),
                str(report.train[fold]),
                str(report.train_all[fold]),
                str(len(report.problems)) if first else "",
                *published,
                end_section=fold == len(report.test) - 1,
            )
    classes = Table(title="images by class")
    classes.add_column("class")
    for report in reports:
        classes.add_column(report.name, justify="right")
    for name in reports[0].classes:
        classes.add_row(name, *(str(report.classes[name]) for report in reports))
    return f"{_rendered(table)}\n{_rendered(classes)}"


def _rendered(table: Table, width: int = 110) -> str:
    buffer = io.StringIO()
    Console(file=buffer, width=width).print(table)
    return buffer.getvalue().rstrip()
