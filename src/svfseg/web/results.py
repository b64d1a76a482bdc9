"""The mask that counts for an image of a project: its marks, or else its result."""

import io
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from svfseg.annotations.inputs import as_image
from svfseg.annotations.names import stem_for
from svfseg.annotations.writers import WRITERS, Named, join_coco
from svfseg.data.images import Array, overlay
from svfseg.data.masks import read_mask
from svfseg.errors import InputError
from svfseg.segmenter.thresholds import assign_classes
from svfseg.web.project import PageProject
from svfseg.web.project.records import ImageRecord, ProjectState
from svfseg.web.project_view import COLORS


def final_mask(project: PageProject, state: ProjectState, image: ImageRecord) -> Array | None:
    """Give the ids that count for an image: its marks, or else its result.

    Args:
        project: holds the image.
        state: what `PageProject.reading` gave.
        image: one of its images.

    Returns:
        (height, width) uint8 of ids; None where nothing is marked or predicted.

    Raises:
        InputError: somebody removed or damaged a file of it.
    """
    if image.is_example:
        mask = project.mask(image)
        mask[mask == 255] = 0
        return mask
    fit = state.fit
    if fit is None or not image.results:
        return None
    thresholds = {each.class_id: each.threshold for each in fit.classes}
    results = [each for each in image.results if each.class_id in thresholds]
    maps = [read_mask(project.path(each.file)) for each in results]
    places = assign_classes(
        torch.from_numpy(np.stack(maps)).float() / 255,
        [thresholds[each.class_id] for each in results],
        [each.present for each in results],
    ).numpy()
    ids: Array = np.array([0, *(each.class_id for each in results)], np.uint8)[places]
    return ids


def draw_thumbnail(project: PageProject, name: str, side: int) -> Image.Image:
    """Draw an image with its mask laid over it, at most ``side`` pixels wide and high."""
    with project.reading() as state:
        image = project.record(name)
        small = Image.fromarray(as_image(project.path(image.file)))
        small.thumbnail((side, side))
        mask = final_mask(project, state, image)
    if mask is None:
        return small
    ids = np.asarray(Image.fromarray(mask).resize(small.size, Image.Resampling.NEAREST))
    pixels = np.asarray(small)
    for class_id in sorted(set(np.unique(ids).tolist()) - {0}):
        code = COLORS[(class_id - 1) % len(COLORS)]
        color = (int(code[1:3], 16), int(code[3:5], 16), int(code[5:], 16))
        pixels = overlay(pixels, (ids == class_id).astype(np.uint8), color)
    return Image.fromarray(pixels)


def zip_masks(project: PageProject, kind: str) -> bytes:
    """Give a zip file with the masks of all images that have one, all of one revision.

    The classes have the ids 1, 2 ... in it, in their order.

    Args:
        project: holds the images.
        kind: one of `svfseg.annotations.writers.WRITERS`.

    Raises:
        InputError: there is no such format, or no mask yet.
    """
    with tempfile.TemporaryDirectory() as folder, project.reading() as state:
        _write_masks(project, state, Path(folder), kind)
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
            for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
                file.write(path, path.relative_to(folder))
    return content.getvalue()


def _write_masks(project: PageProject, state: ProjectState, folder: Path, kind: str) -> None:
    if kind not in WRITERS:
        raise InputError(f"unknown format {kind}: expected {', '.join(WRITERS)}")
    classes = tuple(each.name for each in state.classes)
    place = np.zeros(256, np.uint8)
    place[[each.id for each in state.classes]] = range(1, len(classes) + 1)
    written = set[str]()
    for image in state.images.values():
        mask = final_mask(project, state, image)
        if mask is None:
            continue
        original = image.original  # unless two files have this name
        stem = stem_for(original, [kind])
        if stem.casefold() in written:
            original = image.name
            stem = stem_for(original, [kind])
        written.add(stem.casefold())
        confidence = _confidence(state, image)
        named = Named(folder / original, place[mask], classes, confidence, name=stem)
        WRITERS[kind](folder, named)
    if not written:
        raise InputError("no image has a mask yet: mark an example, and learn from it")
    if kind == "coco":
        join_coco(folder)
        shutil.rmtree(folder / "coco")


def _confidence(state: ProjectState, image: ImageRecord) -> dict[str, float]:
    if image.is_example:
        return {each.name: 1.0 for each in state.classes}
    sure = {each.class_id: each.confidence for each in image.results}
    return {each.name: sure.get(each.id, 0.0) for each in state.classes}
