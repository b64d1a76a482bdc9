"""Measure what a user gets: masks on folders of marked images, from one and from five of them."""

import csv
import io
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from svfseg.annotations.folders import find_supports
from svfseg.annotations.inputs import as_image, as_mask
from svfseg.data.images import Array, overlay, write_picture
from svfseg.errors import InputError, MissingFileError
from svfseg.files import read_text, write_text
from svfseg.segmenter import FewShotSegmenter
from svfseg.segmenter.scores import boundary_f, image_iou, pooled_iou, rank_correlation
from svfseg.segmenter.yardsticks import PixelClassifier

logger = logging.getLogger(__name__)

Row = dict[str, Any]
# A class counts as outlined in an image from this share of its pixels on; where less is marked,
# from half of what is.
OUTLINED = 0.002


class Task(NamedTuple):
    """A folder of marked images of one class.

    Attributes:
        name: name of the folder.
        images: (height, width, 3) each.
        masks: (height, width) of 0, 1 and 255 each.
    """

    name: str
    images: list[Array]
    masks: list[Array]


class Draw(NamedTuple):
    """Which images of a task are supports, and which are asked.

    Attributes:
        supports: numbers of images with the class.
        negatives: numbers of images without it, given too.
        queries: numbers of the others.
    """

    supports: list[int]
    negatives: list[int]
    queries: list[int]


@dataclass(frozen=True)
class Arm:
    """A way to answer.

    Attributes:
        seconds: see `svfseg.FewShotSegmenter`.
        adapt: see there.
        pixels: the classifier of pixels that is asked instead: logistic or forest.
    """

    seconds: float = 0.0
    adapt: str | None = None
    pixels: str = ""


def arms(seconds: float) -> dict[str, Arm]:
    """List the ways to answer, fitted ones within a time."""
    return {
        "instant": Arm(),
        "fitted": Arm(seconds),
        "fitted+svf": Arm(seconds, "svf"),
        "logistic": Arm(pixels="logistic"),
        "forest": Arm(pixels="forest"),
    }


def read_tasks(folder: Path, split: str = "") -> list[tuple[str, Path]]:
    """List the tasks of a folder: one per class of each folder in it.

    Args:
        folder: holds a folder per task, with images/, masks/ and classes.txt.
        split: A or B, for every other task in the order of their names; empty for all.

    Raises:
        MissingFileError: no such folder.
        InputError: no task in it, or another split.
    """
    if not folder.is_dir():
        raise MissingFileError(f"there is no folder at {folder}", settings=("tasks",))
    found = sorted(each for each in folder.iterdir() if (each / "images").is_dir())
    if not found:
        raise InputError(
            f"{folder} holds no task: expected folders with images/ and masks/", settings=("tasks",)
        )
    if split not in ("", "A", "B"):
        raise InputError(f"split is {split}: expected A or B", settings=("split",))
    start, step = {"": (0, 1), "A": (0, 2), "B": (1, 2)}[split]
    return [(each.name, each) for each in found[start::step]]


def load_task(path: Path) -> list[Task]:
    """Read a task folder: one task per class, each against all else."""
    images, masks, names = find_supports([path], [], [])
    pixels = [as_image(image) for image in images]
    classes = names or ["class"]
    ids = [
        as_mask(mask, image, classes, str(mask), path)
        for path, mask, image in zip(images, masks, pixels, strict=True)
    ]
    tasks = []
    for number, name in enumerate(classes, start=1):
        own = [np.where(each == 255, 255, each == number).astype(np.uint8) for each in ids]
        label = path.name if len(classes) == 1 else f"{path.name}/{name}"
        tasks.append(Task(label, pixels, own))
    return tasks


def draw(task: Task, shots: int, number: int, negatives: int, most: int) -> Draw:
    """Choose supports and queries at random.

    Args:
        task: the task.
        shots: number of supports.
        number: number of the draw.
        negatives: number of images without the class that are given.
        most: number of queries.

    Raises:
        InputError: too few images with the class.
    """
    order = np.random.default_rng((number, shots)).permutation(len(task.images)).tolist()
    having = [i for i in order if (task.masks[i] == 1).any()]
    without = [i for i in order if not (task.masks[i] == 1).any()]
    if len(having) <= shots:
        raise InputError(f"{task.name} has {len(having)} images with the class: {shots} are shown")
    given = without[:negatives]
    rest = [i for i in order if i not in having[:shots] and i not in given][:most]
    if not set(rest) & set(having):  # one that shows it, to be scored by
        rest = [having[shots], *rest[: most - 1]]
    return Draw(having[:shots], given, rest)


def measure(task: Task, choice: Draw, arm: Arm, device: str, seed: int) -> tuple[Row, list[Array]]:
    """Fit one way, ask all queries, and score.

    Returns:
        The row, and the masks of the queries.
    """
    images = [task.images[i] for i in (*choice.supports, *choice.negatives)]
    masks = [*(task.masks[i] for i in choice.supports), *(None for _ in choice.negatives)]
    begin = time.perf_counter()
    answer: Callable[[Array], tuple[Array, float]]
    estimate = float("nan")
    if arm.pixels:
        classifier = PixelClassifier(arm.pixels, seed, device).fit(images, masks)

        def answer(image: Array) -> tuple[Array, float]:
            return classifier.predict(image), float("nan")

    else:
        segmenter = FewShotSegmenter(
            seconds=arm.seconds, adapt=arm.adapt, device=device, seed=seed
        ).fit(images, masks)
        estimate = segmenter.thresholds_[1].iou

        def answer(image: Array) -> tuple[Array, float]:
            result = segmenter.predict(image)
            return result.mask, result.least_confidence

    fitted = time.perf_counter()
    answers = [answer(task.images[i]) for i in choice.queries]
    asked = time.perf_counter()
    truths = [task.masks[i] for i in choice.queries]
    found = [mask == 1 for mask, _ in answers]
    showing = [i for i, truth in enumerate(truths) if (truth == 1).any()]
    absent = [i for i in range(len(truths)) if i not in showing]
    ious = [image_iou(found[i], truths[i]) for i in showing]
    sure = [answers[i][1] for i in showing]
    edges = [f for i in showing if not np.isnan(f := boundary_f(found[i], truths[i]))]
    row = {
        "iou": pooled_iou([found[i] for i in showing], [truths[i] for i in showing]),
        "image_iou": mean(ious),
        "boundary_f": float(np.mean(edges)) if edges else None,
        "emptied": mean(float(_is_empty(found[i], truths[i])) for i in showing),
        "outlined": mean(float(found[i].mean() >= OUTLINED) for i in absent) if absent else None,
        "confidence_rank": rank_correlation(sure, ious),
        "confidence_error": mean(abs(a - b) for a, b in zip(sure, ious, strict=True)),
        "estimate": estimate,
        "fit_seconds": fitted - begin,
        "query_seconds": (asked - fitted) / len(choice.queries),
        "peak_mb": _peak_mb(),
    }
    return {k: _plain(v) for k, v in row.items()}, [mask for mask, _ in answers]


def _is_empty(found: npt.NDArray[np.bool_], truth: Array) -> bool:
    """Whether nothing worth the name is outlined where something is marked."""
    return bool(found.mean() < min(OUTLINED, float((truth == 1).mean()) / 2))


def _plain(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else round(float(value), 4)


def _peak_mb() -> float | None:
    """Memory that this process has held at most; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def bench_masks(
    folder: Path, split: str, shots: Sequence[int], draws: int, names: Sequence[str],
    seconds: float, negatives: int, queries: int, device: str, done: set[tuple[Any, ...]],
) -> Iterator[tuple[Row, Task, Draw, list[Array]]]:  # fmt: skip
    """Measure the ways to answer on all tasks of a folder, one row after the other.

    Args:
        folder: see `read_tasks`.
        split: see there.
        shots: numbers of supports.
        draws: number of draws.
        names: keys of `arms`.
        seconds: time of a fit.
        negatives: images without the class that are given.
        queries: images that are asked.
        device: device to compute on.
        done: (task, shots, draw, arm) that are not measured again.
    """
    ways = arms(seconds)
    for name, value, least in (
        ("draws", draws, 1), ("queries", queries, 1), ("negatives", negatives, 0),
        ("shots", min(shots, default=0), 1),
    ):  # fmt: skip
        if value < least:
            raise InputError(f"{name} is {value}: expected {least} or more", settings=(name,))
    unknown = [name for name in names if name not in ways]
    if unknown:
        raise InputError(
            f"unknown way {unknown[0]}: expected {', '.join(ways)}", settings=("arms",)
        )
    for _, path in read_tasks(folder, split):
        for task in load_task(path):
            for shot in shots:
                for number in range(draws):
                    try:
                        choice = draw(task, shot, number, negatives, queries)
                    except InputError as error:
                        logger.warning("left out: %s", error)
                        break
                    for name in names:
                        if (task.name, shot, number, name) in done:
                            continue
                        scores, masks = measure(task, choice, ways[name], device, number)
                        label = {"task": task.name, "shots": shot, "draw": number, "arm": name}
                        yield {**label, "negatives": negatives, **scores}, task, choice, masks


# What is averaged, and in which unit of the row it is shown.
_SCORES = (
    "iou", "boundary_f", "emptied", "outlined", "confidence_rank", "confidence_error",
    "fit_seconds", "query_seconds", "peak_mb",
)  # fmt: skip
_LABELS = ("task", "shots", "draw", "arm", "negatives")


def means(rows: Sequence[Row]) -> list[Row]:
    """Average over draws and then over tasks, for each way and number of supports.

    The interval of the IoU is that of 2,000 bootstrap samples of the tasks and of the draws of
    each, 95 %.
    """
    result = []
    groups = dict.fromkeys((row["arm"], row["shots"]) for row in rows)
    for arm, shots in groups:
        own = [row for row in rows if (row["arm"], row["shots"]) == (arm, shots)]
        summary: Row = {"arm": arm, "shots": shots, "tasks": len({row["task"] for row in own})}
        for score in _SCORES:
            per_task = _per_task(own, score)
            if per_task:
                summary[score] = round(mean(mean(values) for values in per_task), 4)
        low, high = _interval(_per_task(own, "iou"))
        result.append({**summary, "low": round(low, 4), "high": round(high, 4)})
    return result


def _per_task(rows: Sequence[Row], score: str) -> list[list[float]]:
    """The values of a score by task, one per draw."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row.get(score) is not None:
            values.setdefault(row["task"], []).append(float(row[score]))
    return list(values.values())


def _interval(per_task: Sequence[Sequence[float]], samples: int = 2000) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    drawn = [
        mean(
            float(rng.choice(per_task[task], len(per_task[task])).mean())
            for task in rng.integers(0, len(per_task), len(per_task))
        )
        for _ in range(samples)
    ]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)


def read_rows(path: Path) -> list[Row]:
    """Read the rows that `write_rows` wrote; none where there is no file.

    Raises:
        InputError: another file.
    """
    if not path.is_file():
        return []
    rows: list[Row] = []
    for line in csv.DictReader(read_text(path).splitlines()):
        if not set(_LABELS) <= set(line):
            raise InputError(f"{path} holds no rows of svfseg bench masks", settings=("csv",))
        row: Row = {name: None if value == "" else value for name, value in line.items()}
        for name, value in row.items():
            if value is not None and name not in ("task", "arm"):
                row[name] = int(value) if name in _LABELS else float(value)
        rows.append(row)
    return rows


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as CSV, the file as a whole."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def sheet(task: Task, choice: Draw, masks: Sequence[Array], path: Path, side: int = 320) -> None:
    """Write a picture of all queries: the image with the truth above, with the mask below."""
    columns = []
    for number, mask in zip(choice.queries, masks, strict=True):
        image, truth = task.images[number], task.masks[number]
        both = [overlay(image, (truth == 1).astype(np.uint8), (64, 160, 255))]
        both.append(overlay(image, (mask == 1).astype(np.uint8), (255, 64, 32)))
        scale = side / max(image.shape[:2])
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        small = [np.asarray(Image.fromarray(each).resize(size)) for each in both]
        padded = [
            np.pad(each, ((0, side - each.shape[0]), (0, side - each.shape[1]), (0, 0)))
            for each in small
        ]
        columns.append(np.concatenate(padded, axis=0))
    write_picture(path, Image.fromarray(np.concatenate(columns, axis=1)), "JPEG")
