"""What was submitted, a file for each task of Label Studio, and what of it is fitted on."""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from svfseg.data.images import Array
from svfseg.files import read_json, replace_file
from svfseg.web.labelstudio.images import ImageSource
from svfseg.web.labelstudio.results import Labeling, draw_results, marked_classes

log = logging.getLogger("svfseg.labelstudio")

Json = Mapping[str, Any]


class Chosen(NamedTuple):
    """What a segmenter is fitted on.

    Attributes:
        images: (height, width, 3) each.
        masks: (height, width) of ids each, None of an image without any class.
        names: of the ids 1, 2 ...
    """

    images: list[Array]
    masks: list[Array | None]
    names: tuple[str, ...]


class Supports:
    """The newest annotation of each task, in a folder.

    Args:
        folder: made where there is none.

    Raises:
        InputError: a damaged file in it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._held = {held["task"]: held for held in map(read_json, folder.glob("*.json"))}

    def put(self, task: int, edit: int, annotation: Any, address: str, results: list[Any]) -> None:
        """Keep an annotation in place of an older one of that task."""
        self._held[task] = {
            "task": task, "edit": edit, "annotation": annotation, "image": address,
            "result": results,
        }  # fmt: skip
        write_json(self._folder / f"{task}.json", self._held[task])

    def drop(self, annotations: set[Any]) -> bool:
        """Forget annotations; whether any of them was held."""
        gone = [task for task, held in self._held.items() if held["annotation"] in annotations]
        for task in gone:
            del self._held[task]
            (self._folder / f"{task}.json").unlink(missing_ok=True)
        return bool(gone)

    def newest(self) -> list[Json]:
        """All that is held, the newest first."""
        return sorted(self._held.values(), key=lambda held: -int(held["edit"]))


def choose_supports(
    held: Sequence[Json], labeling: Labeling, images: ImageSource, most: int
) -> Chosen:
    """The first of each class and of those without any; what cannot be read is left out.

    Args:
        held: the newest first.
        labeling: what the project offers.
        images: where they come from.
        most: of each class.
    """
    found: list[Array] = []
    masks: list[Array | None] = []
    counts: Counter[str] = Counter()
    for one in held:
        try:
            classes = marked_classes(one["result"], labeling) or {""}
            if all(counts[name] >= most for name in classes):
                continue
            image = images.read(one["image"])
            mask = draw_results(one["result"], labeling, image)
        except (ValueError, OSError) as error:
            log.warning("task %s is left out: %s", one["task"], error)
            continue
        counts.update(classes)
        found.append(image)
        masks.append(mask)
    ids = {int(i) for mask in masks if mask is not None for i in np.unique(mask)}
    present = [i for i in range(1, len(labeling.labels) + 1) if i in ids]
    # a class that nobody marked yet is not fitted: the ids of the others move up
    moved = np.arange(256, dtype=np.uint8)
    moved[present] = np.arange(1, len(present) + 1)
    return Chosen(
        found,
        [None if mask is None else moved[mask] for mask in masks],
        tuple(labeling.labels[i - 1] for i in present),
    )


def write_json(path: Path, content: Json) -> None:
    """Write an object whole or not at all."""
    with replace_file(path) as fresh:
        fresh.write_text(json.dumps(content) + "\n", encoding="utf-8", newline="\n")
