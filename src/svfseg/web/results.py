"""What counts for an image of a project: what is marked, else what was found; shown and saved."""

import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from svfseg.annotations.inputs import as_image
from svfseg.annotations.writers import WRITERS, Named, join_coco
from svfseg.data.images import Array, overlay, read_mask
from svfseg.errors import InputError
from svfseg.segmenter.thresholds import assign_classes
from svfseg.web.project import COLORS, Project, is_example


def answer(project: Project, name: str) -> Array | None:
    """What counts for an image, (height, width) of ids: what is marked, else what was found."""
    about = project.state["images"][name]
    if is_example(about):
        mask = project.mask(name)
        mask[mask == 255] = 0
        return mask
    if "found" not in about:
        return None
    present = about["found"]["present"]
    maps = [read_mask(project.found_path(name, i)) for i in range(1, len(present) + 1)]
    levels = project.state["thresholds"][: len(present)]
    stacked = torch.from_numpy(np.stack(maps)).float() / 255
    return assign_classes(stacked, levels, present).numpy()


def draw_answer(project: Project, name: str, side: int) -> Image.Image:
    """An image with what counts laid over it, at most ``side`` wide or high."""
    small = Image.fromarray(as_image(project.path(name)))
    small.thumbnail((side, side))
    found = answer(project, name)
    if found is None:
        return small
    ids = np.asarray(Image.fromarray(found).resize(small.size, Image.Resampling.NEAREST))
    shown = np.asarray(small)
    for class_id in sorted(set(np.unique(ids).tolist()) - {0}):
        code = COLORS[(class_id - 1) % len(COLORS)]
        color = (int(code[1:3], 16), int(code[3:5], 16), int(code[5:], 16))
        shown = overlay(shown, (ids == class_id).astype(np.uint8), color)
    return Image.fromarray(shown)


def export_masks(project: Project, folder: Path, form: str) -> int:
    """Write the masks of all images that have an answer, and give their number.

    Args:
        project: whose images.
        folder: to write, empty.
        form: of `svfseg.annotations.writers.WRITERS`.

    Raises:
        InputError: no such format, or no answer yet.
    """
    if form not in WRITERS:
        raise InputError(f"unknown format {form}: expected {', '.join(WRITERS)}")
    classes = tuple(project.state["classes"])
    count, taken = 0, set[str]()
    for name in project.names():
        mask = answer(project, name)
        if mask is None:
            continue
        about = project.state["images"][name]
        found = about.get("found", {}).get("confidence", [])
        sure = dict.fromkeys(classes, 1.0)
        if not is_example(about):
            sure = dict.fromkeys(classes, 0.0) | dict(zip(classes, found, strict=False))
        own = Path(about["original"])  # as its owner calls it, unless two are called so
        if own.stem in taken:
            own = Path(name)
        taken.add(own.stem)
        WRITERS[form](folder, Named(own, mask, classes, sure))
        count += 1
    if not count:
        raise InputError("nothing is marked or found yet: mark an example, and learn from it")
    if form == "coco":
        join_coco(folder)
        shutil.rmtree(folder / "coco")
    return count
