"""Kill every change of a page's project at every operation: the project is as before, or as after.

python -m tests.torture.page FOLDER STEP
"""

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from svfseg import FewShotSegmenter
from svfseg.segmenter.task_file import read_task
from svfseg.web.project import PageProject
from svfseg.web.results import final_mask
from tests.torture.stops import (
    KILLED,
    REFUSED,
    count_operations,
    die_in,
    fill_disk,
    kill,
    stopped_at,
)

CLASSES = ("ant", "bee", "cat")


def picture(seed: int, side: int = 64) -> bytes:
    """A PNG of noise."""
    content = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)
    Image.fromarray(noise).save(content, "PNG")
    return content.getvalue()


def stripes(number: int) -> np.ndarray:
    """A mask with a stripe of each class, of other widths for each number."""
    ids = np.zeros((64, 64), np.uint8)
    for class_id in (1, 2, 3):
        ids[:, 16 * class_id : 16 * class_id + 4 + number * class_id] = class_id
    return ids


def build(folder: Path) -> None:
    """A project with three classes in two images, something learned, and a result."""
    project = PageProject(folder)
    project.set_classes(CLASSES)
    for number in range(3):
        project.add_image(f"p{number}.png", picture(number), 10**6)
    for number in range(2):
        project.set_mask(f"p{number}.png", stripes(number))
    examples = project.examples()
    segmenter = FewShotSegmenter(seconds=0, size=64)
    segmenter.fit(examples.images, examples.masks, examples.names)
    fit = project.save_task(segmenter, examples.class_ids)
    project.save_result(
        "p2.png", segmenter.predict(project.path(project.record("p2.png").file)), fit
    )
    project.close()


def outcome(folder: Path) -> dict[str, object]:
    """What a person finds in a project: every mask by the names of its classes."""
    project = PageProject(folder)
    state = project.state
    names = {each.id: each.name for each in state.classes}
    masks = {}
    for image in state.images.values():
        mask = final_mask(project, state, image)
        Image.open(project.path(image.file)).load()
        if mask is not None:
            values, counts = np.unique(mask, return_counts=True)
            masks[image.name] = {names.get(int(v), int(v)): int(n) for v, n in
                                 zip(values, counts, strict=True) if v}  # fmt: skip
    learned = None
    if state.fit is not None:
        task = read_task(project.path(state.fit.file))
        learned = [[names[c.class_id] for c in state.fit.classes], len(task.metadata["classes"]),
                   [c.threshold for c in state.fit.classes]]  # fmt: skip
    project.close()
    files = sorted(p.name for part in ("images", "marks", "results", "tasks")
                   for p in (folder / part).iterdir())  # fmt: skip
    return {"classes": list(names.values()), "images": list(state.images), "masks": masks,
            "learned": learned, "files": files,
            "marked": {i.name: [i.marked, i.without] for i in state.images.values()}}  # fmt: skip


CHANGES: dict[str, Callable[[PageProject], object]] = {
    "add an image": lambda p: p.add_image("new.png", picture(9), 10**6),
    "remove an image": lambda p: p.remove_image("p1.png"),
    "remove an image with a result": lambda p: p.remove_image("p2.png"),
    "mark": lambda p: p.set_mask("p0.png", stripes(3)),
    "mark what was outlined": lambda p: p.set_mask("p2.png", stripes(2)),
    "empty the marks": lambda p: p.set_mask("p0.png", np.zeros((64, 64), np.uint8)),
    "forget the marks": lambda p: p.forget_marks("p0.png"),
    "say that no class is there": lambda p: p.set_without("p0.png", True),
    "add a class": lambda p: p.set_classes([*CLASSES, "dog"]),
    "rename a class": lambda p: p.set_classes(["ant", "wasp", "cat"]),
    "remove a class": lambda p: p.remove_class(1),
    "move a threshold": lambda p: p.set_threshold(2, 0.123),
}


def changed(folder: Path, name: str, statement: int | None = None) -> Callable[[], None]:
    """Make one change of a project; die at a statement of its transaction."""

    def work() -> None:
        project = PageProject(folder)
        if statement is not None:
            die_in(project.database._sql, statement)
        CHANGES[name](project)
        project.close()

    return work


def _outcome_or_error(folder: Path) -> dict[str, object]:
    try:
        return outcome(folder)
    except Exception as error:  # whatever it is, the project is not what it was
        return {"error": str(error)}


def sweep(folder: Path, step: int) -> dict[str, object]:
    """Stop every change at every STEPth operation, at every STEPth statement, and on a full disk."""
    base, copy = folder / "base", folder / "copy"
    if not base.is_dir():
        build(base)
    shutil.copytree(base, copy)
    before = outcome(copy)
    counts = {"kills": 0, "full disks": 0}
    wrong = []
    for name in CHANGES:
        shutil.rmtree(copy)
        shutil.copytree(base, copy)
        assert stopped_at(None, changed(copy, name)) == 0
        after = outcome(copy)
        assert after != before, name
        shutil.rmtree(copy)
        shutil.copytree(base, copy)
        operations = count_operations(changed(copy, name))
        for way in ("operations", "statements", "full disks"):
            for number in range(0, operations if way == "full disks" else 400, step):
                shutil.rmtree(copy)
                shutil.copytree(base, copy)
                if way == "statements":
                    status = stopped_at(None, changed(copy, name, number))
                else:
                    stop = kill if way == "operations" else fill_disk
                    status = stopped_at(number, changed(copy, name), stop)
                counts["full disks" if way == "full disks" else "kills"] += status != 0
                found = _outcome_or_error(copy)
                right = (after,) if status == 0 else (before, after)
                if found not in right or status not in (0, KILLED, REFUSED):
                    wrong.append([name, way, number, status])
                if status == 0 and way != "full disks":  # what is short may still fit
                    break
    return {**counts, "wrong": wrong}


if __name__ == "__main__":
    print(json.dumps(sweep(Path(sys.argv[1]), int(sys.argv[2]))))
