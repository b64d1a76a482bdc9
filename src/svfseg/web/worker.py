"""The long jobs of the page, one at a time: learning, and predicting all images."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from svfseg.annotations.inputs import as_image
from svfseg.errors import InputError
from svfseg.segmenter import FewShotSegmenter
from svfseg.segmenter.events import TuningStep
from svfseg.segmenter.summary import advice_summary, class_summary
from svfseg.web.errors import BUG, BusyError
from svfseg.web.project import PageProject
from svfseg.web.project.records import FitRecord

log = logging.getLogger("svfseg.web")


class Job(TypedDict, total=False):
    """The job that runs or ran last, as the page gets it.

    Attributes:
        kind: "none" before the first job, "learning", "outlining".
        running: whether it runs.
        done: number of steps or images that are done.
        of: number of all steps or images; 0 while it is not known.
        began: when it began, seconds since 1970.
        phase: when it began to predict images, seconds since 1970.
        seconds: how long it took, once it has ended.
        stopped: whether a person stopped it.
        error: why it failed, one line.
        found: what learning found: the IoU on left-out examples, and what would help most.
    """

    kind: str
    running: bool
    done: int
    of: int
    began: float
    phase: float
    seconds: float
    stopped: bool
    error: str
    found: list[str]


class _StoppedError(Exception):
    """A person stopped the job."""


class Worker:
    """A thread that learns and predicts; its progress can be read, and it can be stopped.

    Args:
        project: holds the images, and takes what is learned and predicted.
        model: see `svfseg.FewShotSegmenter`.
        device: auto, cpu, cuda, mps.
    """

    def __init__(self, project: PageProject, model: str, device: str) -> None:
        self.project, self.model, self.device = project, model, device
        self._learned: tuple[int, FewShotSegmenter] | None = None  # and the number of its fit
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self.job: Job = {"kind": "none", "running": False}

    @property
    def running(self) -> bool:
        """Whether a job runs."""
        return self.job["running"]

    def learn(
        self,
        adapt: str | None,
        tile: bool,
        reject_absent: bool,
        size: int | None,
        seconds: float,
        revision: int | None = None,
    ) -> None:
        """Learn from the examples, then predict all other images.

        Args:
            adapt: see `svfseg.FewShotSegmenter`, as for the other parameters.
            tile: see there.
            reject_absent: see there.
            size: see there.
            seconds: see there.
            revision: revision of the project that the person who asks for it saw.

        Raises:
            BusyError: another job runs.
            OutdatedError: something was marked since that revision.
            InputError: a class has no example, or a parameter is wrong.
        """
        examples = self.project.examples(revision)
        for place, name in enumerate(examples.names, start=1):
            if not any(mask is not None and (mask == place).any() for mask in examples.masks):
                raise InputError(f"mark {name} in at least one image first")
        segmenter = FewShotSegmenter(
            self.model,
            adapt=adapt,
            tile=tile,
            reject_absent=reject_absent,
            size=size,
            seconds=seconds,
            device=self.device,
        )

        def work() -> None:
            with self.project.reading():  # an example that is removed meanwhile is learned from
                segmenter.fit(examples.images, examples.masks, examples.names, self._report_step)
            fit = self.project.save_task(segmenter, examples.class_ids)
            self._learned = fit.number, segmenter
            self.job["found"] = class_summary(segmenter) + advice_summary(segmenter)[:1]
            self._predict(segmenter, fit, self._open_images(fit))

        self._start("learning", work)

    def outline(self) -> None:
        """Predict all images that have no result of the last fit, with what was learned.

        Raises:
            BusyError: another job runs.
            InputError: nothing was learned yet.
        """
        fit = self.project.state.fit
        if fit is None:
            raise InputError(
                "nothing was learned yet: mark the class in an image, and learn from it"
            )

        def work() -> None:
            self._predict(self._segmenter(fit), fit, self._open_images(fit))

        self._start("outlining", work)

    def _segmenter(self, fit: FitRecord) -> FewShotSegmenter:
        """What was learned, as it was or read from its file."""
        if self._learned is None or self._learned[0] != fit.number:
            with self.project.reading():
                path = self.project.path(fit.file)
                self._learned = (
                    fit.number, FewShotSegmenter.load(path, self.model, self.device)
                )  # fmt: skip
        return self._learned[1]

    def stop(self) -> None:
        """End the job after its present step or image; what is done stays."""
        self._stop.set()

    def close(self) -> None:
        """Stop the job, and wait for its end."""
        self.stop()
        if self._thread is not None:
            self._thread.join(60)

    def _open_images(self, fit: FitRecord) -> list[str]:
        """Names of images that are not examples, and have no result of a fit."""
        return [
            image.name
            for image in self.project.state.images.values()
            if not image.is_example and all(each.fit != fit.number for each in image.results)
        ]

    def _start(self, kind: str, work: Callable[[], None]) -> None:
        with self._lock:
            if self.running:
                raise BusyError("another job is running: wait for its end, or stop it")
            self._stop.clear()
            self.job = {"kind": kind, "running": True, "done": 0, "of": 0, "began": time.time()}

        def run() -> None:
            try:
                work()
            except _StoppedError:
                self.job["stopped"] = True
            except InputError as error:
                self.job["error"] = " ".join(str(error).split())
            except OSError as error:  # a full disk, a folder that was removed
                log.exception("%s failed", kind)
                self.job["error"] = " ".join(str(error).split())
            except Exception:
                log.exception("%s failed", kind)
                self.job["error"] = BUG
            self.job["seconds"] = round(time.time() - self.job["began"], 1)
            self.job["running"] = False

        self._thread = threading.Thread(target=run, name=kind, daemon=True)
        self._thread.start()

    def _report_step(self, event: TuningStep) -> None:
        self.job["done"], self.job["of"] = event.step, event.steps
        if self._stop.is_set():
            raise _StoppedError

    def _predict(self, segmenter: FewShotSegmenter, fit: FitRecord, names: Sequence[str]) -> None:
        self.job |= {"kind": "outlining", "done": 0, "of": len(names), "phase": time.time()}
        for number, name in enumerate(names, start=1):
            if self._stop.is_set():
                raise _StoppedError
            with self.project.reading() as state:
                image = state.images.get(name)
                if image is not None:  # else it was removed in between
                    pixels = as_image(self.project.path(image.file))
                    (result,) = segmenter.iter_predict([pixels])
                    self.project.save_result(name, result, fit)
            self.job["done"] = number
