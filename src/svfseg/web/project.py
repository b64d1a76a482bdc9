"""A project of the page, a folder: images, their marks, what was learned and what was predicted."""

import re
import shutil
import threading
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image

from svfseg.annotations.writers import palette
from svfseg.data.images import Array
from svfseg.data.masks import read_mask
from svfseg.data.opening import open_picture
from svfseg.errors import InputError
from svfseg.files import replace_file, write_json
from svfseg.segmenter import FewShotSegmenter, Segmentation
from svfseg.segmenter.task_file import rename_classes
from svfseg.web.errors import UnknownNameError
from svfseg.web.project_file import (
    ImageRecord,
    is_example,
    new_state,
    read_project,
    work_size,
)
from svfseg.web.uploads import decode_image

STATE, TASK = "project.json", "task.svf"
# Formats that browsers display: such files are stored as they came, all others as PNG.
DISPLAYED = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}


class PageProject:
    """Everything that a person does on the page, written at once; any thread may call.

    The folder holds project.json, images/ as they came, masks/NAME.png (ids), found/NAME/ID.png
    (probability in 1/255) and task.svf. It can be copied to another machine.

    Args:
        folder: folder of the project; made if it is not there.

    Raises:
        InputError: the folder holds something else, a damaged project, or one that is open.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self.revision = 0
        if (folder / STATE).is_file():
            self.state = read_project(folder / STATE)
        elif folder.is_dir() and any(folder.iterdir()):
            raise InputError(
                f"{folder} is not a project: expected {STATE} in it, or an empty folder; to work "
                "on the images in it, name a new folder for the project, and this one as images",
                settings=("images",),
            )
        else:
            self.state = new_state()
        for part in ("images", "masks", "found"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        # a lock of the process: the thread that closes a project is not the one that opened it
        self._open = FileLock(folder / ".lock", thread_local=False)
        try:
            self._open.acquire(timeout=0)
        except Timeout:
            raise InputError(f"{folder} is open in another program: use that, or stop it") from None
        self._write()

    def close(self) -> None:
        """Let other programs open the folder."""
        self._open.release()

    def _write(self) -> None:
        self.revision += 1
        write_json(self.folder / STATE, self.state)

    def _touch(self, name: str) -> int:
        """Give an image a version that no other image had, not even an earlier one of its name."""
        self.state["ticks"] += 1
        self.record(name)["version"] = self.state["ticks"]
        return self.state["ticks"]

    # images

    def add_image(self, name: str, data: bytes, max_pixels: int) -> str:
        """Store an image under a name that no other has, and give that name.

        Args:
            name: name of the file that was added.
            data: its bytes.
            max_pixels: largest number of pixels that it may have.

        Raises:
            InputError: not an image, a damaged one, one with too many pixels, or one that is
                there already.
        """
        image = decode_image(data, max_pixels, name)
        stem = _stem(name)
        with self.lock:
            same = [p for p in (self.folder / "images").glob(f"{stem}.*") if p.name in self.names()]
            if any(p.read_bytes() == data for p in same):
                raise InputError(f"{name} is there already")
            suffix = _displayed_suffix(data)
            taken = {Path(other).stem.lower() for other in self.state["images"]}
            others = (f"{stem}-{number}" for number in count(2))
            free = next(s for s in chain([stem], others) if s.lower() not in taken)
            path = self.folder / "images" / f"{free}{suffix or '.png'}"
            with replace_file(path) as fresh:
                if suffix is None:
                    Image.fromarray(image).save(fresh, "PNG")
                else:
                    fresh.write_bytes(data)
            height, width = image.shape[:2]
            self.state["images"][path.name] = {
                "width": width,
                "height": height,
                "marked": [],
                "original": Path(name.replace("\\", "/")).name,
                "version": 0,
            }
            self._touch(path.name)
            self._write()
            return path.name

    def has(self, name: str) -> bool:
        """Say whether an image of a file's name was added."""
        return _stem(name) in {Path(other).stem for other in self.state["images"]}

    def remove_image(self, name: str) -> None:
        """Remove an image, its marks and its result.

        Raises:
            UnknownNameError: there is no such image.
        """
        with self.lock:
            self.path(name).unlink(missing_ok=True)
            self._mask_path(name).unlink(missing_ok=True)
            shutil.rmtree(self._result_folder(name), ignore_errors=True)
            del self.state["images"][name]
            self._write()

    def names(self) -> list[str]:
        """Give the names of all images, in the order in which they were added."""
        with self.lock:
            return list(self.state["images"])

    def record(self, name: str) -> ImageRecord:
        """Give what is known of an image.

        Raises:
            UnknownNameError: there is no such image.
        """
        image = self.state["images"].get(name)
        if image is None:
            raise UnknownNameError(f"{name} is not in this project: reload the page")
        return image

    def path(self, name: str) -> Path:
        """Give the file of an image.

        Raises:
            UnknownNameError: there is no such image.
        """
        self.record(name)
        return self.folder / "images" / name

    # classes

    def set_classes(self, names: Sequence[str]) -> None:
        """Name the classes, and add those beyond the present ones.

        Raises:
            InputError: an empty name, the same name twice, or fewer names than there are classes.
        """
        cleaned = [" ".join(name.split()) for name in names]
        if not all(cleaned) or len(set(cleaned)) < len(cleaned):
            raise InputError("every class needs a name of its own")
        with self.lock:
            if len(cleaned) < len(self.state["classes"]):
                raise InputError(
                    f"found {len(cleaned)} names for {len(self.state['classes'])} classes: name "
                    "all of them, or remove a class"
                )
            self.state["classes"] = cleaned
            if self.state["learned"]:
                rename_classes(self.folder / TASK, cleaned[: self.state["learned"]])
            self._write()

    def remove_class(self, class_id: int) -> None:
        """Remove a class from all masks; if it was learned, forget everything that was learned.

        Raises:
            InputError: there is no such class, or no other one.
        """
        with self.lock:
            number = len(self.state["classes"])
            if not 1 <= class_id <= number:
                raise InputError(f"there is no class {class_id}: reload the page")
            if number == 1:
                raise InputError("the last class cannot be removed: rename it")
            del self.state["classes"][class_id - 1]
            for name, image in self.state["images"].items():
                if image["marked"]:
                    mask = self._marks(name)
                    mask[mask == class_id] = 0
                    mask[(mask > class_id) & (mask < 255)] -= 1
                    self._save_mask(name, mask)
            if class_id <= self.state["learned"]:
                for name, image in self.state["images"].items():
                    image.pop("found", None)
                    self._touch(name)
                    shutil.rmtree(self._result_folder(name), ignore_errors=True)
                self.state["learned"] = 0
                self.state["thresholds"], self.state["as_learned"] = [], []
                (self.folder / TASK).unlink(missing_ok=True)
            self._write()

    # marks

    def mask(self, name: str) -> Array:
        """Give the ids that are marked in an image, (height, width) uint8; 0 where none is.

        Raises:
            UnknownNameError: there is no such image.
        """
        image = self.record(name)
        if image.get("without") or not image["marked"]:
            return np.zeros((image["height"], image["width"]), np.uint8)
        return self._marks(name)

    def _marks(self, name: str) -> Array:
        return read_mask(self._mask_path(name)).copy()

    def set_mask(self, name: str, ids: Array) -> int:
        """Store the ids that a person marked, and give the new version of the image.

        Args:
            name: name of the image.
            ids: (height, width) uint8, of the image's size or of its `work_size`.

        Raises:
            UnknownNameError: there is no such image.
            InputError: an id of no class, or another size.
        """
        with self.lock:
            image = self.record(name)
            size = image["width"], image["height"]
            if ids.shape[::-1] not in (size, work_size(*size)):
                raise InputError(
                    f"the mask of {name} is {ids.shape[1]}x{ids.shape[0]}: expected "
                    f"{size[0]}x{size[1]}"
                )
            unknown = set(np.unique(ids).tolist()) - {*range(len(self.state["classes"]) + 1), 255}
            if unknown:
                raise InputError(
                    f"the mask of {name} holds the ids {sorted(unknown)}: expected at most "
                    f"{len(self.state['classes'])}, the number of classes"
                )
            scaled = Image.fromarray(ids).resize(size, Image.Resampling.NEAREST)
            self._save_mask(name, np.asarray(scaled))
            image.pop("without", None)
            self._write()
            return image["version"]

    def set_without(self, name: str, without: bool) -> int:
        """Say that an image shows none of the classes, and give the new version of the image.

        Such an image is an example. What is marked in it is stored, and counts again when this is
        taken back.

        Raises:
            UnknownNameError: there is no such image.
        """
        with self.lock:
            self.record(name)["without"] = without
            version = self._touch(name)
            self._write()
            return version

    def forget_marks(self, name: str) -> int:
        """Make an image an example no more, and give the new version of the image.

        Raises:
            UnknownNameError: there is no such image.
        """
        with self.lock:
            image = self.record(name)
            image["marked"], image["without"] = [], False
            self._mask_path(name).unlink(missing_ok=True)
            version = self._touch(name)
            self._write()
            return version

    def _save_mask(self, name: str, mask: Array) -> None:
        record = self.record(name)
        record["marked"] = sorted(set(np.unique(mask).tolist()) - {0, 255})
        self._touch(name)
        if not record["marked"]:
            self._mask_path(name).unlink(missing_ok=True)
            return
        image = Image.fromarray(mask)
        colors = palette(len(self.state["classes"]))
        image.putpalette([channel for color in colors for channel in color])
        with replace_file(self._mask_path(name)) as fresh:
            image.save(fresh, "PNG")

    # tasks and results

    def supports(self) -> tuple[list[Path], list[Array | None]]:
        """Give the example images and their masks; None of an image without any class."""
        names = [n for n in self.names() if is_example(self.record(n))]
        return [self.path(n) for n in names], [
            None if self.record(n).get("without") else self.mask(n) for n in names
        ]

    def save_task(self, segmenter: FewShotSegmenter) -> None:
        """Store what was learned; every earlier result becomes an old one."""
        with self.lock:
            segmenter.save(self.folder / TASK)
            thresholds = [rule.threshold for rule in segmenter.thresholds_.values()]
            self.state["learned"] = len(segmenter.classes_)
            self.state["thresholds"], self.state["as_learned"] = thresholds, list(thresholds)
            self.state["fits"] += 1
            self._write()

    def save_result(self, name: str, result: Segmentation) -> None:
        """Store the probabilities that were predicted in an image: thresholds may still change."""
        with self.lock:
            image = self.state["images"].get(name)
            if image is None:  # removed while it was predicted
                return
            folder = self._result_folder(name)
            folder.mkdir(parents=True, exist_ok=True)
            for i, probability in enumerate(result.probabilities, start=1):
                grey = np.round(probability.astype(np.float32) * 255).astype(np.uint8)
                with replace_file(folder / f"{i}.png") as fresh:
                    Image.fromarray(grey).save(fresh, "PNG", compress_level=1)
            image["found"] = {
                "confidence": list(result.confidence.values()),
                "present": list(result.present.values()),
                "fit": self.state["fits"],
            }
            self._touch(name)
            self._write()

    def probability_path(self, name: str, class_id: int) -> Path:
        """Give the file with the probabilities of a class in an image.

        Raises:
            UnknownNameError: there is no such image, or no result of that class in it.
        """
        result = self.record(name).get("found")
        if result is None or not 1 <= class_id <= len(result["present"]):
            raise UnknownNameError(
                f"there is no result of class {class_id} in {name}: reload the page"
            )
        return self._result_folder(name) / f"{class_id}.png"

    def set_threshold(self, class_id: int, value: float) -> None:
        """Change the probability from which a pixel belongs to a class.

        Raises:
            InputError: not between 0 and 1, or not a class that was learned.
        """
        if not 1 <= class_id <= self.state["learned"] or not 0 < value < 1:
            raise InputError(
                f"the threshold of class {class_id} is {value}: expected between 0 and 1, and a "
                "class that was learned"
            )
        with self.lock:
            self.state["thresholds"][class_id - 1] = value
            self._write()

    def _mask_path(self, name: str) -> Path:
        return self.folder / "masks" / f"{Path(name).stem}.png"

    def _result_folder(self, name: str) -> Path:
        return self.folder / "found" / Path(name).stem


def _stem(name: str) -> str:
    """The name of a file without its suffix, in letters that every system allows."""
    own = Path(name.replace("\\", "/")).stem
    return re.sub(r"[^\w.-]+", "_", own).strip("._")[:100] or "image"


def _displayed_suffix(data: bytes) -> str | None:
    """The suffix of a file that every browser displays upright; None for other files."""
    with open_picture(data) as image:
        turned = image.getexif().get(0x0112, 1) != 1
        return None if turned else DISPLAYED.get(image.format or "")
