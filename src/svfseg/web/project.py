"""A project of the page: images, what is marked in them, what was learned and found; a folder."""

import io
import json
import re
import shutil
import threading
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image

from svfseg._version import __version__
from svfseg.annotations.writers import palette
from svfseg.data.images import Array, read_mask
from svfseg.errors import InputError
from svfseg.files import read_json, replace_file
from svfseg.segmenter import FewShotSegmenter, Segmentation
from svfseg.segmenter.task_file import rename_classes
from svfseg.web.uploads import decode_image

STATE, TASK = "project.json", "task.svf"
# What browsers show, and is kept as it came; all else is kept as PNG.
SHOWN = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
# Masks are painted at most at so many pixels, and scaled to the image's.
PAINTED = 4_000_000
COLORS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#00a5a5", "#f032e6", "#9a8400")


class Project:
    """Everything a person did, on disk as soon as it is done; any thread may call.

    The folder holds project.json, images/ as they came, masks/NAME.png (ids), found/NAME/ID.png
    (probability in 1/255) and task.svf: it can be copied to another machine.

    Args:
        folder: made if it is not there.

    Raises:
        InputError: a folder that holds something else, a damaged project, or one that is open.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self.revision = 0
        path = folder / STATE
        if path.is_file():
            self.state = _read_state(path)
        elif folder.is_dir() and any(folder.iterdir()):
            raise InputError(
                f"{folder} is no project: expected {STATE} in it, or an empty folder; to bring "
                f"its images along: svfseg app NAME --images {folder}"
            )
        else:
            self.state = _fresh()
        for part in ("images", "masks", "found"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        # of the process: the thread that closes a project is not the one that opened it
        self._lock_file = FileLock(folder / ".lock", thread_local=False)
        try:
            self._lock_file.acquire(timeout=0)
        except Timeout:
            raise InputError(f"{folder} is open in another program: use that, or stop it") from None
        self._write()

    def close(self) -> None:
        """Let others open it."""
        self._lock_file.release()

    def _write(self) -> None:
        self.revision += 1
        with replace_file(self.folder / STATE) as fresh:
            fresh.write_text(
                json.dumps(self.state, indent=1) + "\n", encoding="utf-8", newline="\n"
            )

    def _touch(self, name: str) -> int:
        """A version of an image's marks and answer that no other had, of any image of its name."""
        self.state["ticks"] += 1
        self.state["images"][name]["version"] = self.state["ticks"]
        return int(self.state["ticks"])

    # images

    def add_image(self, name: str, data: bytes, max_pixels: int) -> str:
        """Keep an image under a name of its own, and give that name.

        Raises:
            InputError: no image, a damaged one, or one with too many pixels.
        """
        image = decode_image(data, max_pixels, name)
        stem = _stem(name)
        with self.lock:
            here = [p for p in (self.folder / "images").glob(f"{stem}.*") if p.name in self.names()]
            if any(p.read_bytes() == data for p in here):
                raise InputError(f"{name} is there already")
            kind = _shown_as(data)
            taken = {Path(other).stem.lower() for other in self.state["images"]}
            others = (f"{stem}-{number}" for number in count(2))
            free = next(s for s in chain([stem], others) if s.lower() not in taken)
            path = self.folder / "images" / f"{free}{kind or '.png'}"
            with replace_file(path) as fresh:
                if kind is None:
                    Image.fromarray(image).save(fresh, "PNG")
                else:
                    fresh.write_bytes(data)
            height, width = image.shape[:2]
            self.state["images"][path.name] = {"width": width, "height": height, "marked": []}
            self.state["images"][path.name]["original"] = Path(name.replace("\\", "/")).name
            self._touch(path.name)
            self._write()
            return path.name

    def has(self, name: str) -> bool:
        """Whether an image of a file's name is in it."""
        return _stem(name) in {Path(other).stem for other in self.state["images"]}

    def remove_image(self, name: str) -> None:
        """Forget an image and all that belongs to it."""
        with self.lock:
            self.path(name).unlink(missing_ok=True)
            self._mask_path(name).unlink(missing_ok=True)
            shutil.rmtree(self._found_folder(name), ignore_errors=True)
            del self.state["images"][name]
            self._write()

    def names(self) -> list[str]:
        """Of all images, in the order in which they came."""
        with self.lock:
            return list(self.state["images"])

    def path(self, name: str) -> Path:
        """The file of an image.

        Raises:
            KeyError: no image of that name.
        """
        self.state["images"][name]
        return self.folder / "images" / name

    # classes

    def set_classes(self, names: Sequence[str]) -> None:
        """Name the classes; more may be added at the end.

        Raises:
            InputError: no name, or the same twice, or fewer than there are.
        """
        cleaned = [" ".join(name.split()) for name in names]
        if not all(cleaned) or len(set(cleaned)) < len(cleaned):
            raise InputError("every class needs a name of its own")
        with self.lock:
            if len(cleaned) < len(self.state["classes"]):
                raise InputError("a class is taken away by removing it, not by naming fewer")
            self.state["classes"] = cleaned
            if self.state["learned"]:
                rename_classes(self.folder / TASK, cleaned[: self.state["learned"]])
            self._write()

    def remove_class(self, class_id: int) -> None:
        """Take a class away, from all masks too; if it was learned, all that was learned goes."""
        with self.lock:
            if not 1 <= class_id <= len(self.state["classes"]) or len(self.state["classes"]) == 1:
                raise InputError("the last class stays: rename it")
            del self.state["classes"][class_id - 1]
            for name, image in self.state["images"].items():
                if image["marked"]:
                    mask = self._marks(name)
                    mask[mask == class_id] = 0
                    mask[(mask > class_id) & (mask < 255)] -= 1
                    self._keep_mask(name, mask)
            if class_id <= self.state["learned"]:
                for name, image in self.state["images"].items():
                    image.pop("found", None)
                    self._touch(name)
                    shutil.rmtree(self._found_folder(name), ignore_errors=True)
                self.state |= {"learned": 0, "thresholds": [], "as_learned": []}
                (self.folder / TASK).unlink(missing_ok=True)
            self._write()

    # what is marked

    def mask(self, name: str) -> Array:
        """(height, width) of ids; zeros where nothing is marked, or nothing is said to be there."""
        about = self.state["images"][name]
        if about.get("without") or not about["marked"]:
            return np.zeros((about["height"], about["width"]), np.uint8)
        return self._marks(name)

    def _marks(self, name: str) -> Array:
        return read_mask(self._mask_path(name)).copy()

    def set_mask(self, name: str, ids: Array) -> int:
        """Keep what a person marked; scaled to the image where it was painted smaller.

        Returns:
            Version of the image's marks.

        Raises:
            KeyError: no such image.
            InputError: ids that are no classes, or another shape than the image's.
        """
        with self.lock:
            about = self.state["images"][name]
            size = about["width"], about["height"]
            if ids.shape[::-1] not in (size, work_size(*size)):
                raise InputError(
                    f"the mask of {name} is {ids.shape[1]}x{ids.shape[0]}: expected "
                    f"{size[0]}x{size[1]}"
                )
            unknown = set(np.unique(ids).tolist()) - {*range(len(self.state["classes"]) + 1), 255}
            if unknown:
                raise InputError(f"the mask of {name} holds ids {sorted(unknown)} of no class")
            scaled = Image.fromarray(ids).resize(size, Image.Resampling.NEAREST)
            self._keep_mask(name, np.asarray(scaled))
            about.pop("without", None)
            self._write()
            return int(about["version"])

    def set_without(self, name: str, without: bool) -> int:
        """Say that an image holds none of the classes, an example too; gives its version.

        What is marked in it is kept, and counts again when this is taken back.
        """
        with self.lock:
            self.state["images"][name]["without"] = without
            version = self._touch(name)
            self._write()
            return version

    def forget_marks(self, name: str) -> int:
        """An image is no example any more; gives its version."""
        with self.lock:
            about = self.state["images"][name]
            about |= {"marked": [], "without": False}
            self._mask_path(name).unlink(missing_ok=True)
            version = self._touch(name)
            self._write()
            return version

    def _keep_mask(self, name: str, mask: Array) -> None:
        about = self.state["images"][name]
        about["marked"] = sorted(set(np.unique(mask).tolist()) - {0, 255})
        self._touch(name)
        if not about["marked"]:
            self._mask_path(name).unlink(missing_ok=True)
            return
        image = Image.fromarray(mask)
        colors = palette(len(self.state["classes"]))
        image.putpalette([channel for color in colors for channel in color])
        with replace_file(self._mask_path(name)) as fresh:
            image.save(fresh, "PNG")

    # what is learned and found

    def supports(self) -> tuple[list[Path], list[Array | None]]:
        """Images that are examples, and their masks; None: none of the classes."""
        names = [n for n in self.names() if is_example(self.state["images"][n])]
        return [self.path(n) for n in names], [
            None if self.state["images"][n].get("without") else self.mask(n) for n in names
        ]

    def keep_task(self, segmenter: FewShotSegmenter) -> None:
        """Keep what was learned; what was found before is marked as older."""
        with self.lock:
            segmenter.save(self.folder / TASK)
            self.state["learned"] = len(segmenter.classes_)
            learned = [rule.threshold for rule in segmenter.thresholds_.values()]
            self.state |= {"thresholds": learned, "as_learned": list(learned)}
            self.state["fits"] += 1
            self._write()

    def keep_found(self, name: str, found: Segmentation) -> None:
        """Keep the probabilities found in an image: thresholds may still move."""
        with self.lock:
            if name not in self.state["images"]:  # removed meanwhile
                return
            folder = self._found_folder(name)
            folder.mkdir(parents=True, exist_ok=True)
            for i, probability in enumerate(found.probabilities, start=1):
                grey = np.round(probability.astype(np.float32) * 255).astype(np.uint8)
                with replace_file(folder / f"{i}.png") as fresh:
                    Image.fromarray(grey).save(fresh, "PNG", compress_level=1)
            about = self.state["images"][name]
            about["found"] = {
                "confidence": list(found.confidence.values()),
                "present": list(found.present.values()),
                "fit": self.state["fits"],
            }
            self._touch(name)
            self._write()

    def found_path(self, name: str, class_id: int) -> Path:
        """The file of the probabilities of a class in an image.

        Raises:
            KeyError: no such image, or nothing found in it yet.
        """
        if not 1 <= class_id <= len(self.state["images"][name]["found"]["present"]):
            raise KeyError(class_id)
        return self._found_folder(name) / f"{class_id}.png"

    def set_threshold(self, class_id: int, value: float) -> None:
        """Move the probability from which a pixel belongs to a class.

        Raises:
            InputError: not between 0 and 1, or no class that was learned.
        """
        if not 1 <= class_id <= self.state["learned"] or not 0 < value < 1:
            raise InputError(
                f"threshold {value} of class {class_id}: expected between 0 and 1, of a class that "
                "was learned"
            )
        with self.lock:
            self.state["thresholds"][class_id - 1] = value
            self._write()

    def shown(self) -> dict[str, Any]:
        """What the page needs to know."""
        with self.lock:
            images = [
                {
                    "name": name,
                    "width": about["width"],
                    "height": about["height"],
                    "work": work_size(about["width"], about["height"]),
                    "marked": [] if about.get("without") else about["marked"],
                    "without": about.get("without", False),
                    "version": about["version"],
                    "found": _with_age(about.get("found"), self.state["fits"]),
                }
                for name, about in self.state["images"].items()
            ]
            return {
                "version": __version__,
                "revision": self.revision,
                "name": self.folder.resolve().name,
                "images": images,
                "classes": self.state["classes"],
                "colors": COLORS,
                "learned": self.state["learned"],
                "thresholds": self.state["thresholds"],
                "as_learned": self.state["as_learned"],
            }

    def _mask_path(self, name: str) -> Path:
        return self.folder / "masks" / f"{Path(name).stem}.png"

    def _found_folder(self, name: str) -> Path:
        return self.folder / "found" / Path(name).stem


def is_example(about: dict[str, Any]) -> bool:
    """Whether something is marked in an image, or that nothing is in it."""
    return bool(about["marked"] or about.get("without"))


def work_size(width: int, height: int) -> tuple[int, int]:
    """Width and height at which masks of an image are painted."""
    ratio = min(1.0, (PAINTED / (width * height)) ** 0.5)
    return max(1, round(width * ratio)), max(1, round(height * ratio))


def _stem(name: str) -> str:
    """What a file may be called on any system."""
    own = Path(name.replace("\\", "/")).stem
    return re.sub(r"[^\w.-]+", "_", own).strip("._")[:100] or "image"


def _read_state(path: Path) -> dict[str, Any]:
    """Read project.json; what an older version of svfseg did not write has its first value."""
    try:
        stored = read_json(path)
    except InputError as error:
        raise InputError(f"{error}: restore it, or remove it") from error
    if not isinstance(stored, dict):
        raise InputError(f"{path} is damaged (it holds no object): restore it, or remove it")
    return {**_fresh(), **stored}


def _fresh() -> dict[str, Any]:
    return {
        "classes": ["thing"],
        "images": {},
        "learned": 0,
        "thresholds": [],
        "as_learned": [],
        "fits": 0,
        "ticks": 0,
    }


def _with_age(found: dict[str, Any] | None, fits: int) -> dict[str, Any] | None:
    return None if found is None else {**found, "old": found["fit"] != fits}


def _shown_as(data: bytes) -> str | None:
    """The ending of a file that every browser shows upright as it is; None for others."""
    with Image.open(io.BytesIO(data)) as image:
        turned = image.getexif().get(0x0112, 1) != 1
        return None if turned else SHOWN.get(image.format or "")
