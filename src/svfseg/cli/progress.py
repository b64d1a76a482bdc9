"""Show a progress bar and lines in the terminal while a command runs."""

import sys
import time
from typing import Self

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

from svfseg.lab.events import (
    CheckpointScored,
    EpisodesScored,
    Event,
    LayerFactored,
    PhaseStarted,
    RunStarted,
    StepDone,
)
from svfseg.segmenter.events import ImageDone, TuningStep


class _Bar:
    """A progress bar that begins with the first event."""

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
        # in a pipe or a log: a line for each tenth, and at most one per second
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

    def __call__(self, event: Event) -> None:
        """Show an event of `svfseg.lab.training.train`."""
        match event:
            case LayerFactored(done, total):
                self._factoring._show(done, total, "")
            case StepDone(step, steps, loss, speed):
                self._factoring.__exit__()
                self._show(step, steps, f"loss {loss:.3f} {speed:.1f} episodes/s")
            case CheckpointScored(step, monitor, scores, is_best) if "miou" in scores:
                best = ", the best so far" if is_best else ""
                score = f"mIoU {100 * scores['miou']:.2f}, FB-IoU {100 * scores['fb_iou']:.2f}"
                self._bar.console.print(f"step {step}: {score} on {monitor}{best}", highlight=False)


class _Sequence:
    """The progress of one thing after the other; a new one ends the one before."""

    def __init__(self) -> None:
        self._current: TrainProgress | EvalProgress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._current is not None:
            self._current.__exit__()
            self._current = None

    def _begin(self, progress: "TrainProgress | EvalProgress") -> None:
        self.__exit__()
        self._current = progress

    def _pass_on(self, event: Event) -> None:
        if self._current is not None:
            self._current(event)


class StudyProgress(_Sequence):
    """A line for each run of a study with the time left, and each run's own progress."""

    def __init__(self) -> None:
        super().__init__()
        self._start, self._first = time.perf_counter(), 0

    def __call__(self, event: Event) -> None:
        """Show an event of `svfseg.lab.study.run_study`."""
        if not isinstance(event, RunStarted):
            self._pass_on(event)
            return
        self.__exit__()  # before the line of the next run
        done, total = event.done, event.total
        if done == 0 or self._first > done:
            self._start, self._first = time.perf_counter(), done
        worked = done - self._first
        spent = time.perf_counter() - self._start
        left = f", {spent / worked * (total - done) / 60:.0f} min left" if worked else ""
        print(f"run {done + 1} of {total}: {event.name}{left}", file=sys.stderr, flush=True)
        self._begin(TrainProgress(event.name))


class DemoProgress(_Sequence):
    """The progress of each training and evaluation of a demo."""

    def __call__(self, event: Event) -> None:
        """Show an event of `svfseg.lab.demo.demo`."""
        if isinstance(event, PhaseStarted):
            kind = TrainProgress if event.phase == "training" else EvalProgress
            self._begin(kind(f"{event.phase}, {event.strategy}"))
        else:
            self._pass_on(event)


class StepProgress(_Bar):
    """Steps of support-time tuning."""

    def __init__(self, label: str = "fitting to the supports") -> None:
        super().__init__(label)

    def __call__(self, event: TuningStep) -> None:
        """Show an event of `svfseg.segmenter.FewShotSegmenter.fit`."""
        self._show(event.step, event.steps, f"loss {event.loss:.3f}")


class ImageProgress(_Bar):
    """A line for each image, the images per second and the time left."""

    def __init__(self, label: str = "predicting") -> None:
        super().__init__(label)

    def __call__(self, event: ImageDone) -> None:
        """Show an event of `svfseg.segmenter.batch.predict_folder`."""
        line = event.prediction
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in line["share"].items())
        confidence = min(line["confidence"].values())
        print(f"{line['mask']}: {shares} of the image, confidence {confidence:.2f}", flush=True)
        self._show(event.done, event.total, f"{event.images_per_second:.1f} images/s")


class EvalProgress(_Bar):
    """The episodes of a seed that are done, and the time left."""

    def __init__(self, label: str = "evaluating") -> None:
        super().__init__(label)

    def __call__(self, event: Event) -> None:
        """Show an event of `svfseg.lab.evaluation.evaluate`."""
        if isinstance(event, EpisodesScored):
            self._show(event.done, event.total, "")
