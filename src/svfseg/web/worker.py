"""What the page lets run for long: learning, and outlining all images; one at a time."""

import threading
import time
from collections.abc import Sequence
from typing import Any

from svfseg.annotations.inputs import as_image
from svfseg.errors import InputError
from svfseg.segmenter import FewShotSegmenter
from svfseg.segmenter.events import TuningStep
from svfseg.web.project import TASK, Project, is_example


class BusyError(ValueError):
    """Asked while another job runs: 409."""


class _StoppedError(Exception):
    """The person wants no more of it."""


class Worker:
    """A thread that learns and outlines; what it is at can be asked and stopped.

    Args:
        project: whose images.
        model: see `svfseg.FewShotSegmenter`.
        device: auto, cpu, cuda, mps.
    """

    def __init__(self, project: Project, model: str, device: str) -> None:
        self.project, self.model, self.device = project, model, device
        self.segmenter: FewShotSegmenter | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self.job: dict[str, Any] = {"kind": "none", "running": False}

    def learn(self, **parameters: Any) -> None:
        """Learn from the examples, then outline all other images.

        Args:
            parameters: of `svfseg.FewShotSegmenter`.

        Raises:
            BusyError: something else runs.
            InputError: no example of a class.
        """
        images, masks = self.project.supports()
        classes = list(self.project.state["classes"])
        for class_id, name in enumerate(classes, start=1):
            if not any(mask is not None and (mask == class_id).any() for mask in masks):
                raise InputError(f"mark {name} in at least one image first")
        segmenter = FewShotSegmenter(self.model, device=self.device, **parameters)

        def work() -> None:
            segmenter.fit(images, masks, classes, self._steps)
            self.project.keep_task(segmenter)
            self.segmenter = segmenter
            self._outline(self._open_images())

        self._start("learning", work)

    def outline(self, names: Sequence[str] | None = None) -> None:
        """Outline images with what was learned; by default all that have no fresh answer.

        Raises:
            BusyError: something else runs.
            InputError: nothing was learned yet.
        """
        if not (self.project.folder / TASK).is_file():
            raise InputError("nothing was learned yet: mark the class in an image, and learn")

        def work() -> None:
            if self.segmenter is None:
                self.segmenter = FewShotSegmenter.load(
                    self.project.folder / TASK, self.model, self.device
                )
            self._outline(self._open_images(fresh=False) if names is None else list(names))

        self._start("outlining", work)

    def stop(self) -> None:
        """End the job after the step or image it is at; what is done stays."""
        self._stop.set()

    def close(self) -> None:
        """Stop, and wait."""
        self.stop()
        if self._thread is not None:
            self._thread.join(60)

    def _open_images(self, fresh: bool = True) -> list[str]:
        """Images that are no examples; without ``fresh`` those whose answer is not up to date."""
        images, fits = self.project.state["images"], self.project.state["fits"]
        return [
            name
            for name in self.project.names()
            if not is_example(images[name])
            and (fresh or images[name].get("found", {}).get("fit") != fits)
        ]

    def _start(self, kind: str, work: Any) -> None:
        with self._lock:
            if self.job["running"]:
                raise BusyError("something is running already: wait for it, or stop it")
            self._stop.clear()
            self.job = {"kind": kind, "running": True, "done": 0, "of": 0, "began": time.time()}

        def run() -> None:
            try:
                work()
            except _StoppedError:
                self.job["stopped"] = True
            except Exception as error:
                self.job["error"] = " ".join(str(error).split()) or type(error).__name__
            self.job["seconds"] = round(time.time() - self.job["began"], 1)
            self.job["running"] = False

        self._thread = threading.Thread(target=run, name=kind, daemon=True)
        self._thread.start()

    def _steps(self, event: TuningStep) -> None:
        self.job |= {"done": event.step, "of": event.steps}
        if self._stop.is_set():
            raise _StoppedError

    def _outline(self, names: Sequence[str]) -> None:
        assert self.segmenter is not None
        self.job |= {"kind": "outlining", "done": 0, "of": len(names), "phase": time.time()}
        for number, name in enumerate(names, start=1):
            if self._stop.is_set():
                raise _StoppedError
            if name in self.project.state["images"]:
                (found,) = self.segmenter.iter_predict([as_image(self.project.path(name))])
                self.project.keep_found(name, found)
            self.job["done"] = number
