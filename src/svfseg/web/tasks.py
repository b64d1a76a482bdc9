"""The folder of fitted tasks that a service answers with, the last used ones in memory."""

import tempfile
import threading
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from svfseg.errors import InputError
from svfseg.files import replace_file
from svfseg.segmenter import FewShotSegmenter
from svfseg.segmenter.hub import find_model
from svfseg.segmenter.task_file import read_task
from svfseg.web.errors import DamagedTaskError, UnknownTaskError

NAME = r"^[A-Za-z0-9_-]{1,64}$"
# A file that was sent may unpack to this many times the largest upload.
UNPACKED = 4
MAX_SIZE, MAX_BATCH, MAX_OVERLAP = 2048, 64, 0.75


class TaskInfo(BaseModel):
    """What a task is."""

    model_config = ConfigDict(allow_inf_nan=False)  # JSON has neither

    name: str
    classes: list[str] = Field(description="Of the ids 1, 2 ... in masks.")
    supports: dict[str, int] = Field(description="Support views of each class.")
    size: int = Field(description="Side that images or tiles are fitted to, pixels.")
    tile: bool
    adapt: str | None
    steps: int
    lr: float
    threshold: dict[str, float]
    iou: dict[str, float | None] = Field(description="Of supports left out, or of other views.")
    bytes: int
    svfseg: str = Field(description="Version that fitted it.")


class Tasks:
    """Tasks by name, each a file NAME.svf; all methods may be called from any thread.

    Args:
        folder: of the files; made if it is not there.
        model: base model of all of them: what a file says of its model is not followed, for that
            could be any path, or a repository to download.
        device: auto, cpu, cuda, mps.
        keep: tasks in memory.
        max_bytes: of a file that is sent.
    """

    def __init__(self, folder: Path, model: str, device: str, keep: int, max_bytes: int) -> None:
        find_model(model)  # better missed now than at the first fit
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.model, self.device = folder, model, device
        self.keep, self.max_bytes = keep, max_bytes
        self._held: OrderedDict[str, tuple[tuple[int, ...], FewShotSegmenter]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many are in memory."""
        return len(self._held)

    def names(self) -> list[str]:
        """All there are."""
        return sorted(path.stem for path in self.folder.glob("*.svf") if path.is_file())

    def path(self, name: str) -> Path:
        """The file of a task.

        Raises:
            UnknownTaskError: there is none.
        """
        path = self.folder / f"{name}.svf"
        if not path.is_file():
            raise _unknown(name)
        return path

    def info(self, name: str) -> TaskInfo:
        """What a task's file says of it.

        Raises:
            UnknownTaskError: there is none.
            DamagedTaskError: it cannot be read.
        """
        path = self.path(name)
        try:
            return _described(name, path)
        except FileNotFoundError as error:  # removed in between
            raise _unknown(name) from error
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(name, path, error) from error

    def load(self, name: str) -> FewShotSegmenter:
        """The segmenter of a task, as its file is now; the one used longest ago is forgotten.

        Raises:
            UnknownTaskError: there is none.
            DamagedTaskError: it cannot be read, or is of another model.
        """
        with self._lock:
            path = self.path(name)
            about = path.stat()
            stamp = (about.st_mtime_ns, about.st_size, about.st_ino)
            held = self._held.pop(name, None)
            if held is None or held[0] != stamp:
                try:
                    held = stamp, FewShotSegmenter.load(path, self.model, self.device)
                except (ValueError, OSError) as error:
                    raise _damaged(name, path, error) from error
            self._held[name] = held
            while len(self._held) > self.keep:
                self._held.popitem(last=False)
            return held[1]

    def save(self, name: str, segmenter: FewShotSegmenter) -> None:
        """Write a task; one of that name is replaced as a whole."""
        with self._lock:
            segmenter.save(self.folder / f"{name}.svf")

    def put(self, name: str, data: bytes) -> None:
        """Write a task's file that was sent, once it has been read and asked.

        Raises:
            InputError: it is no task, damaged, or of another model; what was there stays.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.svf"
            path.write_bytes(data)
            try:
                self._try(path)
            except Exception as error:  # a made-up file can fail anywhere
                raise InputError(
                    f"this file is no task that can be used here ({_without(path, error)}): send "
                    f"one that svfseg fit wrote with the model {self.model}"
                ) from error
        with self._lock, replace_file(self.folder / f"{name}.svf") as fresh:
            fresh.write_bytes(data)

    def delete(self, name: str) -> None:
        """Remove a task.

        Raises:
            UnknownTaskError: there is none.
        """
        with self._lock:
            self.path(name).unlink()
            self._held.pop(name, None)

    def _try(self, path: Path) -> None:
        with zipfile.ZipFile(path) as file:
            unpacked = sum(part.file_size for part in file.infolist())
        if unpacked > UNPACKED * self.max_bytes:
            raise InputError(f"it unpacks to {unpacked:,} bytes")
        segmenter = FewShotSegmenter.load(path, self.model, self.device)
        for name, least, most in (
            ("size", 32, MAX_SIZE), ("batch", 1, MAX_BATCH), ("overlap", 0, MAX_OVERLAP),
        ):  # fmt: skip
            if not least <= getattr(segmenter, name) <= most:
                raise InputError(f"its {name} is not between {least} and {most}")
        segmenter.predict(np.zeros((64, 64, 3), np.uint8))
        _described("", path)


def _described(name: str, path: Path) -> TaskInfo:
    about = read_task(path).metadata
    rules = dict(zip(about["classes"], about["rules"], strict=True))
    return TaskInfo(**{
        **about,
        "name": name,
        "adapt": about["strategy"],
        "tile": about["parameters"]["tile"],
        "threshold": {n: rule["threshold"] for n, rule in rules.items()},
        "iou": {n: None if r["iou"] is None else round(r["iou"], 4) for n, r in rules.items()},
        "bytes": path.stat().st_size,
    })  # fmt: skip


def _unknown(name: str) -> UnknownTaskError:
    return UnknownTaskError(f"no task {name}: GET /tasks lists those there are, a fit makes one")


def _damaged(name: str, path: Path, error: Exception) -> DamagedTaskError:
    return DamagedTaskError(
        f"task {name} cannot be used ({_without(path, error)}): fit it again, or send its file"
    )


def _without(path: Path, error: Exception) -> str:
    """An error without the place on this machine."""
    return str(error).replace(str(path), path.name)
