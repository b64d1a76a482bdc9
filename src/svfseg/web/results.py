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
from svfseg.annotations.writers import WRITERS, Named, join_coco
from svfseg.data.images import Array, overlay
from svfseg.data.masks import read_mask
from svfseg.errors import InputError
from svfseg.segmenter.thresholds import assign_classes
from svfseg.web.project import PageProject
from svfseg.web.project_file import is_example
from svfseg.web.project_view import COLORS


def final_mask(project: PageProject, name: str) -> Array | None:
    """Give the ids that count for an image: its marks, or else its result.

    Args:
        project: holds the image.
        name: name of the image.

    Returns:
        (height, width) uint8 of ids; None where nothing is marked or predicted.

    Raises:
        UnknownNameError: there is no such image.
    """
    image = project.record(name)
    if is_example(image):
        mask = project.mask(name)
        mask[mask == 255] = 0
        return mask
    if "found" not in image:
        return None
    present = image["found"]["present"]
    maps = [read_mask(project.probability_path(name, i)) for i in range(1, len(present) + 1)]
    thresholds = project.state["thresholds"][: len(present)]
    stacked = torch.from_numpy(np.stack(maps)).float() / 255
    return assign_classes(stacked, thresholds, present).numpy()


def draw_thumbnail(project: PageProject, name: str, side: int) -> Image.Image:
    """Draw an image with its mask laid over it, at most ``side`` pixels wide and high."""
    small = Image.fromarray(as_image(project.path(name)))
    small.thumbnail((side, side))
    mask = final_mask(project, name)
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
    """Give a zip file with the masks of all images that have one.

    Args:
        project: holds the images.
        kind: one of `svfseg.annotations.writers.WRITERS`.

    Raises:
        InputError: there is no such format, or no mask yet.
    """
    with tempfile.TemporaryDirectory() as folder:
        _write_masks(project, Path(folder), kind)
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
            for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
                file.write(path, path.relative_to(folder))
    return content.getvalue()


def _write_masks(project: PageProject, folder: Path, kind: str) -> None:
    if kind not in WRITERS:
        raise InputError(f"unknown format {kind}: expected {', '.join(WRITERS)}")
    classes = tuple(project.state["classes"])
    written = set[str]()
    for name in project.names():
        mask = final_mask(project, name)
        if mask is None:
            continue
        path = Path(project.record(name)["original"])  # unless two files have this name
        if path.stem in written:
            path = Path(name)
        written.add(path.stem)
        WRITERS[kind](folder, Named(path, mask, classes, _confidence(project, name, classes)))
    if not written:
        raise InputError("no image has a mask yet: mark an example, and learn from it")
    if kind == "coco":
        join_coco(folder)
        shutil.rmtree(folder / "coco")


def _confidence(project: PageProject, name: str, classes: tuple[str, ...]) -> dict[str, float]:
    image = project.record(name)
    if is_example(image):
        return dict.fromkeys(classes, 1.0)
    predicted = image["found"]["confidence"] if "found" in image else []
    return dict.fromkeys(classes, 0.0) | dict(zip(classes, predicted, strict=False))
