"""The work for one project of Label Studio: predict its tasks, fit on what is submitted there."""

import copy
import logging
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from svfseg.errors import InputError
from svfseg.files import write_json
from svfseg.segmenter import FewShotSegmenter
from svfseg.web.labelstudio.images import ImageSource
from svfseg.web.labelstudio.payloads import (
    AnnotationEvent,
    AnnotationPayload,
    AnnotationsEvent,
    DeletedEvent,
    Event,
    Json,
    TaskPayload,
    read_payload,
)
from svfseg.web.labelstudio.results import (
    Labeling,
    Prediction,
    draw_results,
    make_prediction,
    read_labeling,
)
from svfseg.web.labelstudio.store import Supports, choose_supports
from svfseg.web.validation import read_state

log = logging.getLogger("svfseg.labelstudio")


class SessionState(TypedDict):
    """The contents of project.json.

    Attributes:
        project: id of the project in Label Studio; None before the first annotation.
        label_config: the labeling configuration; None before it was set up.
        fits: number of fits so far.
        edits: number of changes to the annotations so far.
        fitted: the value of ``edits`` that was fitted last.
    """

    project: int | None
    label_config: str | None
    fits: int
    edits: int
    fitted: int


class LabelStudioSession:
    """Predict tasks, and fit some seconds after annotations were submitted.

    The folder holds the fitted task (task.svf), what was submitted (supports/, a file for each
    task of Label Studio) and project.json. A session with the same folder goes on from there.

    Args:
        folder: where everything is stored; made if it is not there.
        images: reads the images of tasks.
        segmenter: has the parameters of the fits; not fitted itself.
        newest: largest number of annotations to fit on, per class, and of images without any.
        wait: seconds from the last annotation to the fit.

    Raises:
        InputError: a damaged folder, or a task of another model.
    """

    def __init__(
        self,
        folder: Path,
        images: ImageSource,
        segmenter: FewShotSegmenter,
        newest: int = 10,
        wait: float = 2.0,
    ) -> None:
        self.folder, self.images = folder, images
        self._blank, self._newest, self._wait = segmenter, newest, wait
        self._lock, self._fitting = threading.RLock(), threading.Lock()
        self._timer: threading.Timer | None = None
        self._task_path, self._state_path = folder / "task.svf", folder / "project.json"
        self._supports = Supports(folder / "supports")
        self._state = _read_state(self._state_path)
        self._labeling = read_labeling(self.label_config) if self.label_config else None
        self._fitted: FewShotSegmenter | None = None
        if self._task_path.is_file():
            self._fitted = FewShotSegmenter.load(self._task_path, segmenter.model, segmenter.device)
        if self._state["edits"] != self._state["fitted"]:
            self._schedule()  # it was stopped before it had fitted

    @property
    def label_config(self) -> str | None:
        """The labeling configuration that was set up last."""
        return self._state["label_config"]

    @property
    def version(self) -> str | None:
        """The version of the fitted task; None before the first fit."""
        return None if self._fitted is None else f"svfseg-{self._state['fits']}"

    @property
    def fitting(self) -> bool:
        """Whether a fit runs."""
        return self._fitting.locked()

    def configure(self, label_config: str) -> None:
        """Take a labeling configuration.

        Raises:
            InputError: it has no brush labels for an image.
        """
        with self._lock:
            if label_config != self.label_config:
                self._labeling = read_labeling(label_config)
                self._state["label_config"] = label_config
                self._write()

    def predict(self, tasks: Sequence[TaskPayload]) -> list[Prediction]:
        """Give predictions for tasks, in their order; empty ones where an image cannot be read.

        Raises:
            InputError: no image of the tasks can be read.
        """
        with self._lock:
            segmenter, labeling, version = self._fitted, self._labeling, self.version
        if segmenter is None or labeling is None or version is None:
            log.warning("no predictions yet: submit an annotation that marks a label")
            return []
        predictions: list[Prediction] = []
        errors = []
        for task in tasks:
            try:
                image = self.images.read(_address(task, labeling))
            except InputError as error:
                errors.append(f"task {task.id}: {error}")
                log.warning(errors[-1])
                predictions.append({"result": [], "score": 0.0, "model_version": version})
            else:
                predictions.append(make_prediction(segmenter.predict(image), labeling, version))
        if errors and len(errors) == len(tasks):
            raise InputError(errors[0])
        return predictions

    def receive(self, action: str, data: Json) -> None:
        """Take an event of Label Studio's webhook; those without annotations change nothing.

        Args:
            action: name of the event.
            data: the rest of what was sent.

        Raises:
            MissingFileError: the annotated image is not there.
            InputError: the event cannot be read, or is of another project.
        """
        project = read_payload(Event, data, action).project
        number = None if project is None else project.id
        self._check_owner(number)
        if project is not None and project.label_config:
            self.configure(project.label_config)
        if action in ("ANNOTATION_CREATED", "ANNOTATION_UPDATED"):
            one = read_payload(AnnotationEvent, data, action)
            self._submit(one.task, one.annotation)
        elif action == "ANNOTATIONS_CREATED":
            several = read_payload(AnnotationsEvent, data, action)
            tasks = {task.id: task for task in several.task}
            for annotation in several.annotation:
                if annotation.task not in tasks:
                    raise InputError(
                        f"{action} has an annotation of task {annotation.task}, and no such task"
                    )
                self._submit(tasks[annotation.task], annotation)
        elif action in ("ANNOTATIONS_DELETED", "ANNOTATION_DELETED"):
            deleted = read_payload(DeletedEvent, data, action)
            gone = [*deleted.annotations, *([deleted.annotation] if deleted.annotation else [])]
            self._forget({annotation.id for annotation in gone})
        elif action == "START_TRAINING":
            self._schedule()
        with self._lock:
            if self._state["project"] is None and self._state["edits"]:
                self._state["project"] = number  # whose annotation was taken first
                self._write()

    def receive_tasks(self, tasks: Iterable[TaskPayload]) -> None:
        """Take annotated tasks, as Label Studio exports them, and fit at once.

        Raises:
            MissingFileError: an annotated image is not there.
            InputError: an annotation cannot be read; or see `fit`.
        """
        for task in tasks:
            for annotation in task.annotations:
                self._submit(task, annotation)
        self.fit()

    def fit(self) -> None:
        """Fit on what was submitted so far; on failure the fitted task stays as it was.

        Raises:
            InputError: see `svfseg.segmenter.FewShotSegmenter.fit`.
        """
        with self._fitting:
            with self._lock:
                self._stop_timer()
                edits, labeling = self._state["edits"], self._labeling
                records = self._supports.newest()
            if labeling is None:
                return
            images, masks, names = choose_supports(records, labeling, self.images, self._newest)
            fresh = None
            if names:
                # a copy: the fitted one answers meanwhile, and both share the network
                fresh = copy.copy(self._blank).fit(images, masks, names)
                fresh.save(self._task_path)
            else:
                self._task_path.unlink(missing_ok=True)
            with self._lock:
                self._fitted = fresh
                self._state["fits"] += fresh is not None
                self._state["fitted"] = edits
                self._write()
        if fresh is None:
            log.info("nothing is fitted: no annotation marks a label")
        else:
            log.info("%s is fitted on %d image(s): %s", self.version, len(images), ", ".join(names))

    def close(self) -> None:
        """Begin no further fit after annotations."""
        with self._lock:
            self._stop_timer()

    def _submit(self, task: TaskPayload, annotation: AnnotationPayload) -> None:
        """Store an annotation; the newest of a task counts, a skipped one does not."""
        labeling, results = self._labeling, annotation.result or []
        if labeling is None:
            raise InputError("no labeling configuration yet: connect the model in Label Studio")
        if annotation.was_cancelled:
            self._forget({annotation.id})
            return
        address = _address(task, labeling)
        if not isinstance(task.id, int):
            raise InputError(f"the task has the id {task.id!r}: expected a number")
        # drawn now, so that whoever submits it reads what is wrong
        draw_results(results, labeling, self.images.read(address))
        with self._lock:
            edit = self._state["edits"] + 1
            self._supports.put(
                {"task": task.id, "edit": edit, "annotation": annotation.id, "image": address,
                 "result": results}
            )  # fmt: skip
            self._state["edits"] = edit
            self._write()
        self._schedule()

    def _forget(self, annotations: set[int | str | None]) -> None:
        with self._lock:
            if not self._supports.drop(annotations):
                return
            self._state["edits"] += 1
            self._write()
        self._schedule()

    def _check_owner(self, project: int | None) -> None:
        owner = self._state["project"]
        if None not in (project, owner) and project != owner:
            raise InputError(
                f"the event is of project {project}, {self.folder} belongs to project {owner}: "
                "start another backend with its own folder"
            )

    def _write(self) -> None:
        write_json(self._state_path, self._state)

    def _schedule(self) -> None:
        with self._lock:
            self._stop_timer()
            self._timer = threading.Timer(self._wait, self._try_fit)
            self._timer.daemon = True
            self._timer.start()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _try_fit(self) -> None:
        try:
            self.fit()
        except InputError as error:  # the server goes on, with the task that it had
            log.error("not fitted: %s", error)
        except Exception:
            log.exception("not fitted")


def _read_state(path: Path) -> SessionState:
    state: SessionState = {
        "project": None, "label_config": None, "fits": 0, "edits": 0, "fitted": 0,
    }  # fmt: skip
    if not path.is_file():
        return state
    return read_state(path, SessionState, state)


def _address(task: TaskPayload, labeling: Labeling) -> str:
    data = task.data or {}
    address = data.get(labeling.key)
    if not isinstance(address, str):
        raise InputError(
            f"the task has no image: expected its address as {labeling.key}, found "
            f"{', '.join(data) or 'nothing'}"
        )
    return address
