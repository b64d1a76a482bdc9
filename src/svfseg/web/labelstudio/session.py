"""A Label Studio project: predicts on its tasks, and fits on what is submitted."""

import copy
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from svfseg.errors import InputError
from svfseg.files import read_json
from svfseg.segmenter import FewShotSegmenter
from svfseg.web.labelstudio.images import ImageSource
from svfseg.web.labelstudio.results import Labeling, as_prediction, draw_results, read_labeling
from svfseg.web.labelstudio.store import Supports, choose_supports, write_json

log = logging.getLogger("svfseg.labelstudio")

Json = Mapping[str, Any]


class Project:
    """Predicts on tasks, and fits anew some seconds after annotations were submitted.

    The folder holds the fitted task (task.svf), what was submitted (supports/, a file for each
    task of Label Studio) and project.json; a project that is made of it again goes on from there.

    Args:
        folder: made where there is none.
        images: where images may come from.
        segmenter: with its parameters, not fitted.
        newest: of each class, and of the images without any, at most so many are fitted on.
        wait: seconds without a further annotation after which it fits.

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
        self._task, self._about = folder / "task.svf", folder / "project.json"
        self._supports = Supports(folder / "supports")
        self._state: dict[str, Any] = {
            "project": None, "label_config": None, "fits": 0, "edits": 0, "fitted": 0,
        }  # fmt: skip
        if self._about.is_file():
            self._state |= read_json(self._about)
        self._labeling = read_labeling(self.label_config) if self.label_config else None
        self._fitted: FewShotSegmenter | None = None
        if self._task.is_file():
            self._fitted = FewShotSegmenter.load(self._task, segmenter.model, segmenter.device)
        if self._state["edits"] != self._state["fitted"]:
            self._schedule()  # it was stopped before it had fitted

    @property
    def label_config(self) -> str | None:
        """The labeling configuration that was set up last."""
        config: str | None = self._state["label_config"]
        return config

    @property
    def version(self) -> str | None:
        """Of the fitted task; None before."""
        return None if self._fitted is None else f"svfseg-{self._state['fits']}"

    def configure(self, label_config: str) -> None:
        """Take a labeling configuration.

        Raises:
            InputError: one without brush labels for an image.
        """
        with self._lock:
            if label_config != self.label_config:
                self._labeling = read_labeling(label_config)
                self._change(label_config=label_config)

    def predict(self, tasks: Sequence[Json]) -> list[dict[str, Any]]:
        """Predictions for tasks, in their order; empty where an image cannot be read.

        Raises:
            InputError: no image of the tasks can be read.
        """
        with self._lock:
            segmenter, labeling, version = self._fitted, self._labeling, self.version
        if segmenter is None or labeling is None or version is None:
            log.warning("no predictions yet: submit an annotation that marks a label")
            return []
        found, errors = [], []
        for task in tasks:
            try:
                image = self.images.read(_address(task, labeling))
                found.append(as_prediction(segmenter.predict(image), labeling, version))
            except (ValueError, OSError) as error:
                errors.append(f"task {task.get('id')}: {error}")
                log.warning(errors[-1])
                found.append({"result": [], "score": 0.0, "model_version": version})
        if errors and len(errors) == len(tasks):
            raise InputError(errors[0])
        return found

    def receive(self, event: str, data: Json) -> None:
        """Take an event of Label Studio's webhook; those without annotations are passed over.

        Raises:
            MissingFileError: the annotated image is not there.
            InputError: an annotation that cannot be read, or of another project.
        """
        try:
            self._take(event, data)
        except (AttributeError, KeyError, TypeError) as error:
            log.debug("%s", event, exc_info=True)
            raise InputError(
                f"{event} is not as Label Studio's webhook sends it ({error!r}): let it send the "
                "payload"
            ) from None

    def receive_tasks(self, tasks: Iterable[Json]) -> None:
        """Take annotated tasks, as Label Studio exports them, and fit at once.

        Raises:
            MissingFileError: as in `receive`.
            InputError: as in `receive` and `fit`.
        """
        for task in tasks:
            for annotation in task.get("annotations", ()):
                self._submit(task, annotation)
        self.fit()

    def fit(self) -> None:
        """Fit on what was submitted so far; on failure the task stays as it was.

        Raises:
            InputError: see `svfseg.segmenter.FewShotSegmenter.fit`.
        """
        with self._fitting:
            with self._lock:
                self._stop_timer()
                edits, labeling = self._state["edits"], self._labeling
                held = self._supports.newest()
            if labeling is None:
                return
            images, masks, names = choose_supports(held, labeling, self.images, self._newest)
            fresh = None
            if names:
                # a copy: the one that is fitted answers meanwhile, and both share the network
                fresh = copy.copy(self._blank).fit(images, masks, names)
                fresh.save(self._task)
            else:
                self._task.unlink(missing_ok=True)
            with self._lock:
                self._fitted = fresh
                self._change(fits=self._state["fits"] + (fresh is not None), fitted=edits)
        if fresh is None:
            log.info("nothing is fitted: no annotation marks a label")
        else:
            log.info("%s is fitted on %d image(s): %s", self.version, len(images), ", ".join(names))

    def close(self) -> None:
        """Fit no more by itself."""
        with self._lock:
            self._stop_timer()

    def _take(self, event: str, data: Json) -> None:
        about = data.get("project") or {}
        self._check_owner(about.get("id"))
        if about.get("label_config"):
            self.configure(about["label_config"])
        if event in ("ANNOTATION_CREATED", "ANNOTATION_UPDATED"):
            self._submit(data["task"], data["annotation"])
        elif event == "ANNOTATIONS_CREATED":
            tasks = {task["id"]: task for task in data["task"]}
            for annotation in data["annotation"]:
                self._submit(tasks[annotation["task"]], annotation)
        elif event in ("ANNOTATIONS_DELETED", "ANNOTATION_DELETED"):
            gone = data.get("annotations") or [data["annotation"]]
            self._forget({annotation["id"] for annotation in gone})
        elif event == "START_TRAINING":
            self._schedule()
        if self._state["project"] is None and self._state["edits"]:
            with self._lock:  # whose annotation was taken first
                self._change(project=about.get("id"))

    def _submit(self, task: Json, annotation: Json) -> None:
        """Keep an annotation; the newest of a task counts, a skipped one does not."""
        labeling, results = self._labeling, list(annotation.get("result") or ())
        if labeling is None:
            raise InputError("no labeling configuration yet: connect the model in Label Studio")
        if annotation.get("was_cancelled"):
            self._forget({annotation["id"]})
            return
        number, address = task.get("id"), _address(task, labeling)
        if not isinstance(number, int):
            raise InputError(f"the task has the id {number!r}: expected a number")
        # drawn now, so that whoever submits it hears what is wrong
        draw_results(results, labeling, self.images.read(address))
        with self._lock:
            edit = self._state["edits"] + 1
            self._supports.put(number, edit, annotation.get("id"), address, results)
            self._change(edits=edit)
        self._schedule()

    def _forget(self, annotations: set[Any]) -> None:
        with self._lock:
            if not self._supports.drop(annotations):
                return
            self._change(edits=self._state["edits"] + 1)
        self._schedule()

    def _check_owner(self, project: Any) -> None:
        owner = self._state["project"]
        if None not in (project, owner) and project != owner:
            raise InputError(
                f"the event is of project {project}, {self.folder} belongs to project {owner}: "
                "start another backend with its own folder"
            )

    def _change(self, **values: Any) -> None:
        self._state |= values
        write_json(self._about, self._state)

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
        except Exception as error:  # the server lives, and answers with what it had
            log.error("not fitted: %s", error, exc_info=not isinstance(error, InputError))


def _address(task: Json, labeling: Labeling) -> str:
    data = task.get("data") or {}
    if not isinstance(data.get(labeling.key), str):
        raise InputError(
            f"the task has no image: expected its address as {labeling.key}, found "
            f"{', '.join(data) or 'nothing'}"
        )
    address: str = data[labeling.key]
    return address
