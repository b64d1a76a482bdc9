"""The work for one project of Label Studio: predict its tasks, fit on what is submitted there."""

import copy
import logging
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from svfseg.errors import InputError
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
from svfseg.web.labelstudio.store import BackendStore, Removed, Submitted
from svfseg.web.labelstudio.supports import choose_supports

log = logging.getLogger("svfseg.labelstudio")


class LabelStudioSession:
    """Predict tasks, and fit some seconds after annotations were submitted.

    The folder holds the fitted task (task.svf) and what was submitted (labelstudio.sqlite). A
    session with the same folder goes on from there.

    Args:
        folder: where everything is stored; made if it is not there.
        images: reads the images of tasks.
        segmenter: has the parameters of the fits; not fitted itself.
        newest: largest number of annotations to fit on, per class, and of images without any.
        wait: seconds from the last annotation to the fit.

    Raises:
        InputError: a damaged folder, one that is open in another program, or a task of another
            model.
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
        self._closed = False
        self.store = BackendStore(folder)
        try:
            config = self.label_config
            self._labeling = read_labeling(config) if config else None
            self._fitted: FewShotSegmenter | None = None
            self._number = self.store.state.fits  # of what is fitted
            path = self.store.task_path
            if path.is_file():
                self._fitted = FewShotSegmenter.load(path, segmenter.model, segmenter.device)
        except BaseException:
            self.store.close()
            raise
        if self.store.state.edits != self.store.state.fitted:
            self._schedule()  # it was stopped before it had fitted

    @property
    def label_config(self) -> str | None:
        """The labeling configuration that was set up last."""
        return self.store.state.label_config

    @property
    def version(self) -> str | None:
        """The version of the fitted task; None before the first fit."""
        with self._lock:
            return None if self._fitted is None else f"svfseg-{self._number}"

    @property
    def fitting(self) -> bool:
        """Whether a fit runs."""
        return self._fitting.locked()

    def configure(self, label_config: str) -> None:
        """Take a labeling configuration.

        Raises:
            InputError: it has no brush labels for an image.
        """
        if label_config != self.label_config:
            self._apply([], read_labeling(label_config), None, label_config)

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
            InputError: the event cannot be read, or is of another project; nothing of it is kept.
        """
        project = read_payload(Event, data, action).project
        number = None if project is None else project.id
        self.store.check_owner(number)
        config = None if project is None else project.label_config
        new = bool(config) and config != self.label_config
        labeling = read_labeling(str(config)) if new else self._labeling
        changes: list[Submitted | Removed] = []
        if action in ("ANNOTATION_CREATED", "ANNOTATION_UPDATED"):
            one = read_payload(AnnotationEvent, data, action)
            changes += self._changes(one.task, one.annotation, labeling)
        elif action == "ANNOTATIONS_CREATED":
            several = read_payload(AnnotationsEvent, data, action)
            tasks = {task.id: task for task in several.task}
            for annotation in several.annotation:
                if annotation.task not in tasks:
                    raise InputError(
                        f"{action} has an annotation of task {annotation.task}, and no such task"
                    )
                changes += self._changes(tasks[annotation.task], annotation, labeling)
        elif action in ("ANNOTATIONS_DELETED", "ANNOTATION_DELETED"):
            deleted = read_payload(DeletedEvent, data, action)
            gone = [*deleted.annotations, *([deleted.annotation] if deleted.annotation else [])]
            changes += [Removed(each.id) for each in gone if each.id is not None]
        self._apply(changes, labeling, number, config if new else None)
        if action == "START_TRAINING":
            self._schedule()

    def receive_tasks(self, tasks: Iterable[TaskPayload]) -> None:
        """Take annotated tasks, as Label Studio exports them, and fit at once.

        Raises:
            MissingFileError: an annotated image is not there.
            InputError: an annotation cannot be read, and nothing is kept; or see `fit`.
        """
        labeling = self._labeling
        changes = [
            change
            for task in tasks
            for annotation in task.annotations
            for change in self._changes(task, annotation, labeling)
        ]
        self._apply(changes, labeling)
        self.fit()

    def fit(self) -> None:
        """Fit on what was submitted so far; on failure the fitted task stays as it was.

        It stays too where annotations that mark a label cannot be read and no other one marks any.

        Raises:
            InputError: see `svfseg.segmenter.FewShotSegmenter.fit`.
            OSError: the disk is full, or cannot be written.
        """
        with self._fitting:
            with self._lock:
                self._stop_timer()
                if self._closed:
                    return
                edits, labeling = self.store.state.edits, self._labeling
            try:
                if labeling is not None:
                    self._fit(edits, labeling)
            finally:
                with self._lock:
                    if self._closed:  # meanwhile, and nobody waited
                        self.store.close()

    def close(self) -> None:
        """Begin no further fit after annotations, and let other programs open the folder."""
        with self._lock:
            self._stop_timer()
            if self._closed:
                return
            self._closed = True
        if self._fitting.acquire(timeout=1):  # else the fit closes it in its end
            self.store.close()
            self._fitting.release()

    def _fit(self, edits: int, labeling: Labeling) -> None:
        found = choose_supports(
            self.store.tasks(), self.store.support, labeling, self.images, self._newest
        )
        problem = found.left_out[0] if found.left_out else ""
        if not found.names and found.marked_left_out:
            log.error(
                "nothing is fitted, and what was fitted before stays: %d annotation(s) that mark a "
                "label cannot be read (%s); mend that, then press Start Training",
                found.marked_left_out, problem,
            )  # fmt: skip
            return
        if found.left_out:
            log.warning("%d annotation(s) cannot be read and are left out (%s)",
                        len(found.left_out), problem)  # fmt: skip
        if not found.names:
            self.store.task_path.unlink(missing_ok=True)
            with self._lock:
                self._fitted = None
            self.store.end_fit(edits)
            log.info("nothing is fitted: no annotation marks a label")
            return
        # a copy: the fitted one answers meanwhile, and both share the network
        fresh = copy.copy(self._blank).fit(found.images, found.masks, found.names)
        number = self.store.begin_fit()
        fresh.save(self.store.task_path)
        with self._lock:
            self._fitted, self._number = fresh, number
        self.store.end_fit(edits)
        log.info("%s is fitted on %d image(s): %s", self.version, len(found.images),
                 ", ".join(found.names))  # fmt: skip

    def _changes(
        self, task: TaskPayload, annotation: AnnotationPayload, labeling: Labeling | None
    ) -> list[Submitted | Removed]:
        """What an annotation changes; the newest of a task counts, a skipped one does not."""
        if labeling is None:
            raise InputError("no labeling configuration yet: connect the model in Label Studio")
        if annotation.was_cancelled:
            return [] if annotation.id is None else [Removed(annotation.id)]
        address = _address(task, labeling)
        if task.id is None:
            raise InputError("the task has no id: expected its number in Label Studio")
        results = annotation.result or []
        # drawn now, so that whoever submits it reads what is wrong
        draw_results(results, labeling, self.images.read(address))
        return [Submitted(task.id, annotation.id, address, results)]

    def _apply(
        self, changes: Sequence[Submitted | Removed], labeling: Labeling | None,
        number: int | None = None, label_config: str | None = None,
    ) -> None:  # fmt: skip
        with self._lock:
            changed = self.store.apply(changes, number, label_config)
            if label_config:
                self._labeling = labeling
        if changed:
            self._schedule()

    def _schedule(self) -> None:
        with self._lock:
            self._stop_timer()
            if self._closed:
                return
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
        except (InputError, OSError) as error:  # the server goes on, with the task that it had
            log.error("not fitted: %s", error)
        except Exception:
            log.exception("not fitted")


def _address(task: TaskPayload, labeling: Labeling) -> str:
    data = task.data or {}
    address = data.get(labeling.key)
    if not isinstance(address, str):
        raise InputError(
            f"the task has no image: expected its address as {labeling.key}, found "
            f"{', '.join(list(data)[:5]) or 'nothing'}"
        )
    return address
