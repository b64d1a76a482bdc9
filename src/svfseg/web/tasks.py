"""The folder of fitted tasks that a service answers with; those used last are in memory."""

import logging
import tempfile
import threading
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from svfseg.errors import InputError
from svfseg.files import replace_file
from svfseg.segmenter import FewShotSegmenter
from svfseg.segmenter.hub import find_model
from svfseg.segmenter.task_file import read_task
from svfseg.web.errors import DamagedTaskError, UnknownNameError

log = logging.getLogger("svfseg.web")

NAME = r"^[A-Za-z0-9_-]{1,64}$"
# The contents of an uploaded file may be this many times as large as the largest upload.
UNPACKED = 4
MAX_SIZE, MAX_BATCH, MAX_OVERLAP = 2048, 64, 0.75


class TaskInfo(BaseModel):
    """What a task is."""

    model_config = ConfigDict(allow_inf_nan=False)  # JSON has neither

    name: str
    classes: list[str] = Field(description="The classes with the ids 1, 2 ... in masks.")
    supports: dict[str, int] = Field(description="Number of support features of each class.")
    size: int = Field(description="Side that images or tiles are resized to, pixels.")
    tile: bool
    adapt: str | None
    steps: int
    lr: float
    threshold: dict[str, float]
    iou: dict[str, float | None] = Field(
        description="IoU on supports that were left out; with one support, on its halves."
    )
    advice: list[str] = Field(description="What would help, in sentences, what helps most first.")
    bytes: int
    svfseg: str = Field(description="Version of svfseg that fitted it.")


class _StoredParameters(BaseModel):
    tile: bool


class _StoredThresholds(BaseModel):
    threshold: float
    iou: float | None


class _StoredTask(BaseModel):
    """The part of a task file's settings that `TaskInfo` is made of."""

    classes: list[str]
    supports: dict[str, int]
    size: int
    strategy: str | None
    steps: int
    lr: float
    svfseg: str
    parameters: _StoredParameters
    rules: list[_StoredThresholds]
    advice: list[str] = []


class _Loaded(NamedTuple):
    """A task in memory, and which state of its file it was read from."""

    version: tuple[int, int, int]
    segmenter: FewShotSegmenter


class Tasks:
    """Tasks by name, each a file NAME.svf; all methods may be called from any thread.

    Args:
        folder: where the files are; made if it is not there.
        model: base model of all tasks. The model that a file names is not followed, because that
            could be any path, or a repository to download.
        device: auto, cpu, cuda, mps.
        keep: largest number of tasks in memory.
        max_bytes: size of the largest file that may be uploaded, bytes.

    Raises:
        MissingFileError: there is no such model.
        OSError: the folder cannot be made.
    """

    def __init__(self, folder: Path, model: str, device: str, keep: int, max_bytes: int) -> None:
        find_model(model)  # better missed now than at the first fit
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.model, self.device = folder, model, device
        self.keep, self.max_bytes = keep, max_bytes
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Give the number of tasks in memory."""
        return len(self._loaded)

    def names(self) -> list[str]:
        """Give the names of all tasks, sorted."""
        return sorted(path.stem for path in self.folder.glob("*.svf") if path.is_file())

    def path(self, name: str) -> Path:
        """Give the file of a task.

        Raises:
            UnknownNameError: there is no such task.
        """
        path = self.folder / f"{name}.svf"
        if not path.is_file():
            raise _unknown(name)
        return path

    def info(self, name: str) -> TaskInfo:
        """Describe a task from its file.

        Raises:
            UnknownNameError: there is no such task.
            DamagedTaskError: its file cannot be read.
        """
        path = self.path(name)
        try:
            return _describe(name, path)
        except FileNotFoundError as error:  # removed in between
            raise _unknown(name) from error
        except (InputError, OSError, zlib.error) as error:
            raise _damaged(name, path, error) from error

    def load(self, name: str) -> FewShotSegmenter:
        """Give the segmenter of a task, as its file is now; the least recently used one goes.

        Raises:
            UnknownNameError: there is no such task.
            DamagedTaskError: its file cannot be read, or is of another model.
        """
        with self._lock:
            path = self.path(name)
            status = path.stat()
            version = (status.st_mtime_ns, status.st_size, status.st_ino)
            loaded = self._loaded.pop(name, None)
            if loaded is None or loaded.version != version:
                try:
                    segmenter = FewShotSegmenter.load(path, self.model, self.device)
                except (InputError, OSError, zlib.error) as error:
                    raise _damaged(name, path, error) from error
                loaded = _Loaded(version, segmenter)
            self._loaded[name] = loaded
            while len(self._loaded) > self.keep:
                self._loaded.popitem(last=False)
            return loaded.segmenter

    def save(self, name: str, segmenter: FewShotSegmenter) -> None:
        """Write the file of a task; a task of that name is replaced."""
        with self._lock:
            segmenter.save(self.folder / f"{name}.svf")

    def put(self, name: str, data: bytes) -> None:
        """Write an uploaded task file, after it was loaded and has predicted an image.

        Raises:
            InputError: it is not a task, damaged, or of another model; the old file stays.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.svf"
            path.write_bytes(data)
            try:
                self._try(path)
            except Exception as error:  # a forged file can fail anywhere, in torch too
                if not isinstance(error, InputError):  # it may be a bug all the same
                    log.warning("an uploaded task file was refused", exc_info=error)
                raise InputError(
                    f"this file is not a task that can be used here ({_brief(path, error)}): send "
                    f"a file that svfseg fit wrote with the model {self.model}"
                ) from error
        with self._lock, replace_file(self.folder / f"{name}.svf") as fresh:
            fresh.write_bytes(data)

    def delete(self, name: str) -> None:
        """Remove a task.

        Raises:
            UnknownNameError: there is no such task.
        """
        with self._lock:
            self.path(name).unlink()
            self._loaded.pop(name, None)

    def _try(self, path: Path) -> None:
        try:
            with zipfile.ZipFile(path) as file:
                unpacked = sum(part.file_size for part in file.infolist())
        except zipfile.BadZipFile as error:
            raise InputError(str(error)) from error
        if unpacked > UNPACKED * self.max_bytes:
            raise InputError(f"it unpacks to {unpacked:,} bytes")
        segmenter = FewShotSegmenter.load(path, self.model, self.device)
        _check_range("size", segmenter.size or MAX_SIZE, 32, MAX_SIZE)
        _check_range("batch", segmenter.batch, 1, MAX_BATCH)
        _check_range("overlap", segmenter.overlap, 0, MAX_OVERLAP)
        segmenter.predict(np.zeros((64, 64, 3), np.uint8))
        _describe("", path)


def _check_range(name: str, value: float, minimum: float, maximum: float) -> None:
    if not minimum <= value <= maximum:
        raise InputError(f"its {name} is not between {minimum} and {maximum}")


def _describe(name: str, path: Path) -> TaskInfo:
    try:
        stored = _StoredTask.model_validate(read_task(path).metadata)
        thresholds = dict(zip(stored.classes, stored.rules, strict=False))
        return TaskInfo(
            name=name,
            classes=stored.classes,
            supports=stored.supports,
            size=stored.size,
            tile=stored.parameters.tile,
            adapt=stored.strategy,
            steps=stored.steps,
            lr=stored.lr,
            threshold={n: one.threshold for n, one in thresholds.items()},
            iou={n: None if t.iou is None else round(t.iou, 4) for n, t in thresholds.items()},
            advice=stored.advice,
            bytes=path.stat().st_size,
            svfseg=stored.svfseg,
        )
    except ValidationError as error:  # of the file's contents
        raise InputError(f"{path} has wrong settings: {' '.join(str(error).split())}") from error


def _unknown(name: str) -> UnknownNameError:
    return UnknownNameError(
        f"there is no task {name}: GET /tasks lists the tasks, and a fit makes one"
    )


def _damaged(name: str, path: Path, error: Exception) -> DamagedTaskError:
    return DamagedTaskError(
        f"task {name} cannot be used ({_brief(path, error)}): fit it again, or send its file"
    )


def _brief(path: Path, error: Exception) -> str:
    """An error without the place on this machine."""
    return str(error).replace(str(path), path.name)
