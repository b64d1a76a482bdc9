"""What a person sees while something runs, and the tables after it."""

import sys
import time
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
        """Take a report of `svfseg.lab.training.train`."""
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
        """Take a report of `svfseg.lab.study.run_study`."""
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


class DemoProgress:
    """The progress of each training and evaluation of a demo."""

    def __init__(self) -> None:
        self._phase: TrainProgress | EvalProgress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._phase is not None:
            self._phase.__exit__()
            self._phase = None

    def __call__(self, report: dict[str, Any]) -> None:
        """Take a report of `svfseg.lab.demo.demo`."""
        if "phase" in report:
            self.__exit__()
            kind = TrainProgress if report["phase"] == "training" else EvalProgress
            self._phase = kind(f"{report['phase']}, {report['strategy']}")
        elif isinstance(self._phase, EvalProgress):
            self._phase(report["episode"], report["episodes"])
        elif self._phase is not None:
            self._phase(report)


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
        """Take a report of `svfseg.segmenter.batch.predict_folder`."""
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in report["share"].items())
        sure = min(report["confidence"].values())
        print(f"{report['mask']}: {shares} of the image, confidence {sure:.2f}", flush=True)
        self._show(report["done"], report["of"], f"{report['speed']:.1f} images/s")


class EvalProgress(_Bar):
    """Episodes done of a seed, and time left."""

    def __init__(self, label: str = "evaluating") -> None:
        super().__init__(label)

    def __call__(self, done: int, total: int) -> None:
        """Take a report of `svfseg.lab.evaluation.score`."""
        self._show(done, total, "")
