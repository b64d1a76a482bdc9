"""What a person sees while something runs, and the tables after it."""

import io
import sys
import time
from collections.abc import Sequence
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from svfseg.data.report import ListReport


class _Bar:
    """A progress bar that begins with the first report."""

    def __init__(self, label: str) -> None:
        self.label = label
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(16),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
        self._task: TaskID | None = None
        self._start = self._printed = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar.live.is_started:
            self._bar.stop()

    def _show(self, done: int, total: int, note: str) -> None:
        if self._task is None:
            self._start = self._printed = time.perf_counter()
            if self._bar.console.is_terminal:
                self._bar.start()
            self._task = self._bar.add_task(self.label, total=total, note="")
        self._bar.update(self._task, completed=done, total=total, note=note)
        if self._bar.console.is_terminal:
            return
        # in a pipe or a log: a line for each tenth, and no more than one a second
        now = time.perf_counter()
        if done == total or (done % max(1, total // 10) == 0 and now - self._printed >= 1):
            self._printed = now
            left = (now - self._start) / done * (total - done)
            text = f"{self.label}: {done} of {total}, {left:.0f} s left, {note}"
            print(text.rstrip(", "), file=sys.stderr, flush=True)


class TrainProgress(_Bar):
    """Steps with loss, episodes per second and time left; a line for each evaluation."""

    def __init__(self, label: str = "training") -> None:
        super().__init__(label)
        self._factoring = _Bar("factoring layers")

    def __exit__(self, *_: object) -> None:
        self._factoring.__exit__()
        super().__exit__()

    def __call__(self, report: dict[str, Any]) -> None:
        """Take a report of `svfseg.training.train`."""
        if "factored" in report:
            self._factoring._show(report["factored"], report["layers"], "")
        elif "loss" in report:
            self._factoring.__exit__()
            note = f"loss {report['loss']:.3f} {report['speed']:.1f} ep./s"
            self._show(report["step"], report["steps"], note)
        elif "miou" in report:
            best = ", the best so far" if report["best"] else ""
            score = f"mIoU {100 * report['miou']:.2f}, FB-IoU {100 * report['fb_iou']:.2f}"
            self._bar.console.print(
                f"step {report['step']}: {score} on {report['selected_on']}{best}", highlight=False
            )


class StudyProgress:
    """A line for each run of a study with the time left, and each run's own progress."""

    def __init__(self) -> None:
        self._run: TrainProgress | None = None
        self._start, self._first = time.perf_counter(), 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._run is not None:
            self._run.__exit__()
            self._run = None

    def __call__(self, report: dict[str, Any]) -> None:
        """Take a report of `svfseg.study.run_study`."""
        if "begin" in report:
            self.__exit__()
            done, of = report["done"], report["of"]
            if done == 0 or self._first > done:
                self._start, self._first = time.perf_counter(), done
            worked = done - self._first
            spent = time.perf_counter() - self._start
            left = f", {spent / worked * (of - done) / 60:.0f} min left" if worked else ""
            print(f"run {done + 1} of {of}: {report['begin']}{left}", file=sys.stderr, flush=True)
            self._run = TrainProgress(report["begin"])
        elif self._run is not None:
            self._run(report)


class StepProgress(_Bar):
    """Steps of support-time tuning."""

    def __init__(self, label: str = "tuning on the supports") -> None:
        super().__init__(label)

    def __call__(self, report: dict[str, Any]) -> None:
        """Take a report of `svfseg.segmenter.FewShotSegmenter.fit`."""
        self._show(report["step"], report["steps"], f"loss {report['loss']:.3f}")


class ImageProgress(_Bar):
    """A line for each image, images a second and time left."""

    def __init__(self, label: str = "predicting") -> None:
        super().__init__(label)

    def __call__(self, report: dict[str, Any]) -> None:
        """Take a report of `svfseg.predictions.predict_folder`."""
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in report["share"].items())
        sure = min(report["confidence"].values())
        print(f"{report['mask']}: {shares} of the image, confidence {sure:.2f}", flush=True)
        self._show(report["done"], report["of"], f"{report['speed']:.1f} images/s")


class EvalProgress(_Bar):
    """Episodes done of a seed, and time left."""

    def __init__(self, label: str = "evaluating") -> None:
        super().__init__(label)

    def __call__(self, done: int, total: int) -> None:
        """Take a report of `svfseg.evaluation.score`."""
        self._show(done, total, "")


def result_table(result: dict[str, Any]) -> str:
    """A result of `svfseg.evaluation.evaluate` as a table: a row a seed, classes in columns."""
    title = (
        f"{result['benchmark']}, fold {result['fold']}, {result['shot']}-shot, "
        f"{result['strategy']}, {result['resize']}-size masks, % IoU"
    )
    table = Table(title=title)
    classes = list(result["seeds"][0]["classes"])
    for name in ("seed", "episodes", "mIoU", "FB-IoU", *classes):
        table.add_column(name, justify="right")
    for row in result["seeds"]:
        scores = [row["miou"], row["fb_iou"], *(row["classes"][c] for c in classes)]
        table.add_row(str(row["seed"]), str(row["episodes"]), *(f"{100 * s:.2f}" for s in scores))
    if len(result["seeds"]) > 1:
        cells = [
            f"{100 * result[k]['mean']:.2f}±{100 * result[k]['std']:.2f}"
            for k in ("miou", "fb_iou")
        ]
        table.add_row("mean±std", "", *cells, *("" for _ in classes))
    notes = []
    if "generalized" in result:
        shares = ", ".join(f"{k} {100 * v:.2f}" for k, v in result["generalized"].items())
        notes.append(f"In one map with the base classes, mIoU %: {shares}.")
    if result["selected_on"] == "test":
        notes.append("The checkpoint was chosen on the test fold: not comparable with honest runs.")
    if result["fold"] != result["trained_on_fold"]:
        notes.append(
            f"Trained on fold {result['trained_on_fold']}: these classes were seen in training."
        )
    return "\n".join([_rendered(table), *notes])


# What a column's numbers are shown in: a factor and a format, for values above 100.
_UNITS = (("bytes", 1e-6, "{:,.1f} MB"), ("operations", 1e-9, "{:,.1f} G"))


def bench_table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of a benchmark: what all share on top, a figure a column, bars beside what has one."""
    shown = [{k: v for k, v in row.items() if k not in ("bars", "arm")} for row in rows]
    names = list(dict.fromkeys(name for row in shown for name in row))
    shared = {
        n for n in names if len(rows) > 1 and all(row.get(n) == shown[0].get(n) for row in shown)
    }
    table = Table(title=", ".join(f"{n} {shown[0][n]}" for n in names if n in shared) or None)
    for name in ("arm", *(n for n in names if n not in shared)):
        table.add_column(name, justify="left" if name == "arm" else "right")
    for row, values in zip(rows, shown, strict=True):
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
    """Reports of a benchmark's ``verify`` as tables: by list and fold, and by class."""
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
