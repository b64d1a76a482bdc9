"""Predict a folder of images, each once, also after a stop in between."""

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from svfseg.annotations.folders import find_images
from svfseg.annotations.inputs import as_image
from svfseg.annotations.writers import ANSWER_WRITERS, Named, join_coco, palette
from svfseg.data.images import Array, overlay
from svfseg.errors import InputError
from svfseg.files import read_json_lines, replace_file, write_text
from svfseg.segmenter import FewShotSegmenter, Segmentation
from svfseg.segmenter.events import ImageDone, ImageReport
from svfseg.segmenter.report import LOG, read_predictions

logger = logging.getLogger(__name__)
WATCH_SECONDS = 1.0


def predict_folder(
    segmenter: FewShotSegmenter,
    queries: Sequence[Path],
    out: Path,
    formats: Sequence[str] = ("png",),
    task: str = "",
    watch: bool = False,
    report: ImageReport | None = None,
) -> list[dict[str, Any]]:
    """Outline the classes in images, and write them down.

    Every image leaves NAME.png, NAME_overlay.jpg, what the formats add, and a line in
    predictions.jsonl; one that has its line, and did not change since, is not done again.

    Args:
        segmenter: fitted.
        queries: images and folders.
        out: folder to write.
        formats: keys of `svfseg.annotations.writers.ANSWER_WRITERS`.
        task: what tells this task from others; one folder holds predictions of one.
        watch: go on with images that appear in the folders, until interrupted.
        report: called after each image.

    Returns:
        The lines of all images, those of earlier calls too.

    Raises:
        MissingFileError: a query is not there.
        InputError: no image, a folder with another task's predictions, or damaged images: all
            others are done before it is raised.
    """
    unknown = [name for name in formats if name not in ANSWER_WRITERS]
    if unknown:
        raise InputError(f"unknown format {unknown[0]}: expected {', '.join(ANSWER_WRITERS)}")
    images = find_images(queries, none=watch)
    out.mkdir(parents=True, exist_ok=True)
    header = {"task": task, "formats": sorted(formats)}
    lines = _read_log(out, header)
    start, done = time.perf_counter(), 0
    problems: dict[Path, str] = {}
    with (out / LOG).open("a", encoding="utf-8", newline="\n") as log:
        if not lines and log.tell() == 0:
            log.write(json.dumps(header) + "\n")
        while True:
            waiting = [p for p in images if not _is_done(p, lines) and p not in problems]
            if report is not None and not watch and len(waiting) < len(images):
                logger.warning("%d image(s) were done already", len(images) - len(waiting))
            for path in waiting:
                try:
                    image = as_image(path)
                except (InputError, OSError) as error:  # cut off, or gone meanwhile
                    problems[path] = str(error)
                    logger.warning("left out: %s", error)
                    log.write(json.dumps({"image": str(path), "left_out": str(error)}) + "\n")
                    continue
                line = _predict(segmenter, path, image, out, formats)
                lines[path.name] = line
                log.write(json.dumps(line) + "\n")
                log.flush()
                done += 1
                if report is not None:
                    speed = done / (time.perf_counter() - start)
                    report(ImageDone(line, done, len(waiting), speed))
            if "coco" in formats and (waiting or not watch):
                join_coco(out)
            if not watch:
                break
            time.sleep(WATCH_SECONDS)
            images = [p for p in find_images(queries, none=True) if _settled(p)]
    if problems:
        first = "; ".join(list(problems.values())[:3])
        raise InputError(f"{len(problems)} of {len(images)} images were left out: {first}")
    return [lines[path.name] for path in images]


def _predict(
    segmenter: FewShotSegmenter, path: Path, image: Array, out: Path, formats: Sequence[str]
) -> dict[str, Any]:
    (prediction,) = segmenter.iter_predict([image])
    named = Named(
        path, prediction.mask, prediction.classes, prediction.confidence, prediction.probabilities
    )
    for name in dict.fromkeys(("png", *formats)):
        ANSWER_WRITERS[name](out, named)
    with replace_file(out / f"{path.stem}_overlay.jpg") as fresh:
        Image.fromarray(drawn(image, prediction)).save(fresh, "JPEG", quality=90)
    shares = {
        name: round(float((prediction.mask == i).mean()), 5)
        for i, name in enumerate(prediction.classes, start=1)
    }
    return {
        "image": os.path.abspath(path),
        "state": _state(path),
        "mask": f"{path.stem}.png",
        "share": shares,
        "confidence": prediction.confidence,
        "support": segmenter.is_support(image),
    }


def drawn(image: Array, prediction: Segmentation) -> Array:
    """Draw all classes over an image."""
    colors = palette(len(prediction.classes))
    for i in range(1, len(prediction.classes) + 1):
        part = (prediction.mask == i).astype("uint8")
        if part.any():
            color = (255, 64, 32) if len(prediction.classes) == 1 else colors[i]
            image = overlay(image, part, color)
    return image


def _read_log(out: Path, header: dict[str, Any]) -> dict[str, dict[str, Any]]:
    path = out / LOG
    if not path.is_file() or not path.read_text().strip():
        return {}
    try:
        head = read_json_lines(path)[0]
        task, formats = head["task"], head["formats"]
    except (InputError, IndexError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is damaged: choose another folder, or remove it", settings=("out",)
        ) from error
    if task != header["task"]:
        raise InputError(
            f"{out} holds predictions of another task: choose another folder, or remove it",
            settings=("out",),
        )
    if formats != header["formats"]:
        raise InputError(
            f"{out} was made with the formats {' '.join(formats)}: give those again, or choose "
            "another folder",
            settings=("format", "out"),
        )
    rows = {Path(line["image"]).name: line for line in read_predictions(out)}
    done = {name: line for name, line in rows.items() if (out / line["mask"]).is_file()}
    # what a stop cut off is written anew
    text = "".join(json.dumps(line) + "\n" for line in (head, *done.values()))
    write_text(path, text)
    return done


def _state(path: Path) -> list[int]:
    """What changes with a file's content: its size and when it was written, in ns."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _is_done(path: Path, lines: Mapping[str, dict[str, Any]]) -> bool:
    """Whether an image has its line, and is the one that it had when it got it."""
    line = lines.get(path.name)
    if line is None:
        return False
    return not path.is_file() or line.get("state") == _state(path)


def _settled(path: Path) -> bool:
    """Whether a file has stopped growing."""
    return time.time() - path.stat().st_mtime > WATCH_SECONDS
