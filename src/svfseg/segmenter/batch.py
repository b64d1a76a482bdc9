"""Predict a folder of images, each once, also after a stop in between."""

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from svfseg.annotations.folders import find_images, images_in
from svfseg.annotations.inputs import as_image
from svfseg.annotations.things import count_specks
from svfseg.annotations.writers import ANSWER_WRITERS, Named, join_coco, palette
from svfseg.data.images import Array, overlay, write_picture
from svfseg.data.opening import is_georeferenced
from svfseg.errors import InputError
from svfseg.segmenter import FewShotSegmenter, Segmentation
from svfseg.segmenter.events import ImageDone, ImageReport
from svfseg.segmenter.prediction_folder import PredictionFolder, digest_of, state_of
from svfseg.segmenter.watching import Watch

logger = logging.getLogger(__name__)
# Formats of outlines, in which specks are left out.
_OUTLINES = ("coco", "yolo", "labelme", "geojson")
# JPEG has no longer sides.
_JPEG_SIDE = 65_500


def predict_folder(
    segmenter: FewShotSegmenter,
    queries: Sequence[Path],
    out: Path,
    formats: Sequence[str] = ("png",),
    task: str = "",
    watch: bool = False,
    report: ImageReport | None = None,
    overwrite: bool = False,
    page: int | None = None,
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
        overwrite: replace files in the folder that are not of earlier calls.
        page: page of files of several, from 1; None takes the first.

    Returns:
        The lines of all images, those of earlier calls too.

    Raises:
        MissingFileError: a query is not there.
        InputError: no image, a folder with another task's predictions, a file of somebody else
            that would be replaced (all before anything is written), or damaged images: all others
            are done before it is raised.
    """
    unknown = [name for name in formats if name not in ANSWER_WRITERS]
    if unknown:
        raise InputError(f"unknown format {unknown[0]}: expected {', '.join(ANSWER_WRITERS)}")
    classes = len(segmenter.classes_)
    with PredictionFolder(out, task, formats, classes, overwrite) as folder:
        work = _Work(segmenter, folder, report, page)
        if watch:
            folder.check([])  # the files of all images; those of each are checked as it comes
            for images in Watch(queries, folder):
                work.do(images, quiet=True)
        own = folder.own_files()
        images = [path for path in images_in(queries) if path.resolve() not in own]
        if not images:
            find_images(queries)  # says what is there instead
        folder.check(images)
        work.do(images)
        if work.problems:
            first = "; ".join(list(work.problems.values())[:3])
            raise InputError(f"{len(work.problems)} of {len(images)} images were left out: {first}")
        return [folder.lines[folder.stem_of(path)] for path in images]


class _Work:
    """Outlines images one after the other, and keeps count."""

    def __init__(
        self, segmenter: FewShotSegmenter, folder: PredictionFolder, report: ImageReport | None,
        page: int | None,
    ) -> None:  # fmt: skip
        self.segmenter, self.folder, self.report, self.page = segmenter, folder, report, page
        self.problems: dict[Path, str] = {}
        self.start, self.done = time.perf_counter(), 0

    def do(self, images: Sequence[Path], quiet: bool = False) -> None:
        """Outline all that are not done; what cannot be read is left out."""
        folder, specks, placed, cut = self.folder, 0, 0, False
        folder.begin()
        waiting = [path for path in images if not folder.is_done(path)]
        if self.report is not None and not quiet and len(waiting) < len(images):
            logger.warning("%d image(s) were done already", len(images) - len(waiting))
        for path in waiting:
            try:
                digest, state = digest_of(path), state_of(path)
                image = as_image(path, page=self.page)
            except (InputError, OSError) as error:  # cut off, or gone meanwhile
                self.problems[path] = str(error)
                logger.warning("left out: %s", error)
                folder.write({"image": os.path.abspath(path), "left_out": str(error)})
                continue
            folder.begin_image(folder.stem_of(path))
            line, mask = _predict(self.segmenter, path, image, folder)
            folder.add(folder.stem_of(path), {**line, "digest": digest, "state": state})
            if set(folder.formats) & set(_OUTLINES):
                specks += count_specks(mask)
            placed += is_georeferenced(path)
            cut |= max(mask.shape) > self.segmenter.predictor_.size
            self.done += 1
            if self.report is not None:
                speed = self.done / (time.perf_counter() - self.start)
                self.report(ImageDone(line, self.done, len(waiting), speed))
        if specks:
            logger.warning("%d speck(s) of less than 16 pixels are in the masks, and left out of "
                           "the outlines", specks)  # fmt: skip
        if self.segmenter.tile and waiting and not cut:
            logger.warning("tiles change nothing: no image has a side of more than %d pixels, the "
                           "size of the task", self.segmenter.predictor_.size)  # fmt: skip
        if placed:
            logger.warning("%d image(s) are georeferenced: masks and outlines are in pixels, and "
                           "do not keep the place", placed)  # fmt: skip
        if "coco" in folder.formats and (waiting or not quiet):
            join_coco(folder.out)


def _predict(
    segmenter: FewShotSegmenter, path: Path, image: Array, folder: PredictionFolder
) -> tuple[dict[str, Any], Array]:
    (prediction,) = segmenter.iter_predict([image])
    stem, out = folder.stem_of(path), folder.out
    named = Named(
        path, prediction.mask, prediction.classes, prediction.confidence, prediction.probabilities,
        stem,
    )  # fmt: skip
    for name in dict.fromkeys(("png", *folder.formats)):
        ANSWER_WRITERS[name](out, named)
    picture = Image.fromarray(drawn(image, prediction))
    if max(picture.size) > _JPEG_SIDE:
        picture.thumbnail((_JPEG_SIDE, _JPEG_SIDE))
    write_picture(out / f"{stem}_overlay.jpg", picture, "JPEG")
    shares = {
        name: round(float((prediction.mask == i).mean()), 5)
        for i, name in enumerate(prediction.classes, start=1)
    }
    line = {
        "image": os.path.abspath(path),
        "mask": f"{stem}.png",
        "files": folder.files_of(stem),
        "share": shares,
        "confidence": prediction.confidence,
        "support": segmenter.is_support(image),
    }
    return line, prediction.mask


def drawn(image: Array, prediction: Segmentation) -> Array:
    """Draw all classes over an image."""
    colors = palette(len(prediction.classes))
    for i in range(1, len(prediction.classes) + 1):
        part = (prediction.mask == i).astype("uint8")
        if part.any():
            color = (255, 64, 32) if len(prediction.classes) == 1 else colors[i]
            image = overlay(image, part, color)
    return image
