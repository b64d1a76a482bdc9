"""The annotations that were submitted, a file for each task, and the ones to fit on."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from svfseg.data.images import Array
from svfseg.errors import InputError
from svfseg.files import read_json, write_json
from svfseg.web.labelstudio.images import ImageSource
from svfseg.web.labelstudio.results import Labeling, draw_results, marked_classes
from svfseg.web.validation import first_problem

log = logging.getLogger("svfseg.labelstudio")


class SupportRecord(TypedDict):
    """The newest annotation of a task.

    Attributes:
        task: id of the task in Label Studio.
        edit: number of the change that brought it; larger is newer.
        annotation: id of the annotation in Label Studio.
        image: address of the task's image.
        result: the annotation's results, as Label Studio sent them.
    """

    task: int
    edit: int
    annotation: int | str | None
    image: str
    result: list[Any]


class FitInput(NamedTuple):
    """What a segmenter is fitted on.

    Attributes:
        images: (height, width, 3) uint8 each.
        masks: (height, width) uint8 of ids each; None of an image without any class.
        names: names of the ids 1, 2 ...
    """

    images: list[Array]
    masks: list[Array | None]
    names: tuple[str, ...]


class Supports:
    """The newest annotation of each task, in a folder.

    Args:
        folder: where the files are; made if it is not there.

    Raises:
        InputError: a damaged file in it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        records = [_read_record(path) for path in folder.glob("*.json")]
        self._records = {record["task"]: record for record in records}

    def put(self, record: SupportRecord) -> None:
        """Store an annotation in place of an older one of its task."""
        self._records[record["task"]] = record
        write_json(self._folder / f"{record['task']}.json", record)

    def drop(self, annotations: set[int | str | None]) -> bool:
        """Remove annotations by their ids, and say whether any of them was stored."""
        tasks = [t for t, record in self._records.items() if record["annotation"] in annotations]
        for task in tasks:
            del self._records[task]
            (self._folder / f"{task}.json").unlink(missing_ok=True)
        return bool(tasks)

    def newest(self) -> list[SupportRecord]:
        """Give all annotations, the newest first."""
        return sorted(self._records.values(), key=lambda record: -record["edit"])


def _read_record(path: Path) -> SupportRecord:
    try:
        return TypeAdapter(SupportRecord).validate_python(read_json(path))
    except ValidationError as error:
        raise InputError(f"{path} is damaged ({first_problem(error)}): remove it") from error


def choose_supports(
    records: Sequence[SupportRecord], labeling: Labeling, images: ImageSource, maximum: int
) -> FitInput:
    """Read the first annotations of each class and of those without any class.

    Annotations whose image cannot be read are left out, and the log says so.

    Args:
        records: the newest first.
        labeling: what the project offers.
        images: reads the images.
        maximum: number of annotations per class.
    """
    pixels: list[Array] = []
    masks: list[Array | None] = []
    counts: Counter[str] = Counter()
    for record in records:
        try:
            classes = marked_classes(record["result"], labeling) or {""}
            if all(counts[name] >= maximum for name in classes):
                continue
            image = images.read(record["image"])
            mask = draw_results(record["result"], labeling, image)
        except InputError as error:
            log.warning("task %s is left out: %s", record["task"], error)
            continue
        counts.update(classes)
        pixels.append(image)
        masks.append(mask)
    ids = {int(i) for mask in masks if mask is not None for i in np.unique(mask)}
    present = [i for i in range(1, len(labeling.labels) + 1) if i in ids]
    # a class that nobody marked yet is not fitted: the ids of the others move up
    moved = np.arange(256, dtype=np.uint8)
    moved[present] = np.arange(1, len(present) + 1)
    return FitInput(
        pixels,
        [None if mask is None else moved[mask] for mask in masks],
        tuple(labeling.labels[i - 1] for i in present),
    )
