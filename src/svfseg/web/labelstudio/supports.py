"""Choose the submitted annotations that are fitted on."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from svfseg.data.images import Array
from svfseg.errors import InputError
from svfseg.web.labelstudio.images import ImageSource
from svfseg.web.labelstudio.results import Labeling, draw_results, marked_classes
from svfseg.web.labelstudio.tables import SupportRecord

Reader = Callable[[int], SupportRecord | None]


class FitInput(NamedTuple):
    """What a segmenter is fitted on, and what could not be read.

    Attributes:
        images: (height, width, 3) uint8 each.
        masks: (height, width) uint8 of ids each; None of an image without any class.
        names: names of the ids 1, 2 ...
        left_out: what is wrong with each annotation that could not be read.
        marked_left_out: how many of these mark a class.
    """

    images: list[Array]
    masks: list[Array | None]
    names: tuple[str, ...]
    left_out: list[str]
    marked_left_out: int


def choose_supports(
    tasks: Iterable[int], read: Reader, labeling: Labeling, images: ImageSource, maximum: int
) -> FitInput:
    """Read the first annotations of each class and of those without any class.

    Annotations that cannot be read are left out.

    Args:
        tasks: ids of the annotated tasks, that with the newest annotation first.
        read: gives the annotation of a task; None where it was removed.
        labeling: what the project offers.
        images: reads the images.
        maximum: number of annotations per class.
    """
    pixels: list[Array] = []
    masks: list[Array | None] = []
    counts: Counter[str] = Counter()
    left_out: list[str] = []
    marked = 0
    for task in tasks:
        classes: set[str] = set()
        known = False
        try:
            record = read(task)
            if record is None:
                continue
            classes = marked_classes(record["result"], labeling)
            known = True
            if all(counts[name] >= maximum for name in classes or {""}):
                continue
            image = images.read(record["image"])
            mask = draw_results(record["result"], labeling, image)
        except InputError as error:
            left_out.append(f"task {task}: {error}")
            marked += bool(classes) or not known  # a damaged annotation may mark anything
            continue
        counts.update(classes or {""})
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
        left_out,
        marked,
    )
