"""The folder of fitted tasks that a service answers with; those used last are in memory."""

import logging
import stat
import tempfile
import threading
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from svfseg.errors import InputError
from svfseg.files import replace_file
from svfseg.segmenter import FewShotSegmenter
from svfseg.segmenter.base import model_size
from svfseg.segmenter.task_file import TaskFile, read_task
from svfseg.web.errors import DamagedTaskError, UnknownNameError, is_full
from svfseg.web.validation import check_plain

log = logging.getLogger("svfseg.web")

NAME = r"^[A-Za-z0-9_-]{1,64}$"
# The contents of an uploaded file may be this many times as large as the largest upload.
UNPACKED = 4
MAX_SIZE, MAX_BATCH, MAX_OVERLAP = 2048, 64, 0.75
# Each position of an image is compared with each of the supports: memory and time grow with their
# product. An uploaded task may have 4,768 positions at 2048 pixels (1 GB), and 195,312 at 320; with
# tiles it answers many images in one, and may have these.
MAX_COMPARED, MAX_TILED = 20_000_000_000, 20_000
# Bytes of a task's description, which GET /tasks sends for all tasks.
MAX_ABOUT = 1_000_000
FOLDER = "a folder"


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


# JSON's whole numbers have no end, but those that programs read have.
_Count = Annotated[int, Field(ge=0, le=2**53)]


class _StoredTask(BaseModel):
    """The part of a task file's settings that `TaskInfo` is made of."""

    classes: list[str]
    supports: dict[str, _Count]
    size: _Count
    strategy: str | None
    steps: _Count
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

    Attributes:
        size: side to which images are fitted where a fit does not say it.

    Raises:
        MissingFileError: there is no such model.
        OSError: the folder cannot be made.
    """

    def __init__(self, folder: Path, model: str, device: str, keep: int, max_bytes: int) -> None:
        self.size = model_size(model)  # better missed now than at the first fit
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.model, self.device = folder, model, device
        self.keep, self.max_bytes = keep, max_bytes
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Give the number of tasks in memory."""
        return len(self._loaded)

    def names(self) -> list[str]:
        """Give the names of all tasks, sorted; those that cannot be read too."""
        return sorted(path.stem for path in self.folder.glob("*.svf"))

    def path(self, name: str) -> Path:
        """Give the file of a task.

        Raises:
            UnknownNameError: there is no such task.
            DamagedTaskError: what has its name is a link or the like, which is not followed: it
                could lead to any file of this machine.
        """
        path = self.folder / f"{name}.svf"
        kind = _kind(path)
        if kind is None:
            raise _unknown(name)
        if kind:
            raise _damaged(name, path, InputError(f"{path.name} is {kind}, not a file"))
        return path

    def info(self, name: str) -> TaskInfo:
        """Describe a task from its file.

        Raises:
            UnknownNameError: there is no such task.
            DamagedTaskError: its file cannot be read.
        """
        path = self.path(name)
        try:
            return _describe(name, read_task(path), path)
        except FileNotFoundError as error:  # removed in between
            raise _unknown(name) from error
        except Exception as error:  # one file that fails in a new way must not hide the others
            if not isinstance(error, (InputError, OSError, zlib.error)):
                log.warning("the file of task %s cannot be read", name, exc_info=error)
            raise _damaged(name, path, error) from error

    def read(self, name: str) -> bytes:
        """Read the file of a task, whatever it holds.

        Raises:
            UnknownNameError: there is no such task.
            DamagedTaskError: its file cannot be read.
        """
        path = self.path(name)
        try:
            return path.read_bytes()
        except FileNotFoundError as error:  # removed in between
            raise _unknown(name) from error
        except OSError as error:
            raise _damaged(name, path, error) from error

    def load(self, name: str) -> FewShotSegmenter:
        """Give the segmenter of a task, as its file is now; the least recently used one goes.

        Raises:
            UnknownNameError: there is no such task.
            DamagedTaskError: its file cannot be read, or is of another model.
        """
        with self._lock:
            path = self.path(name)
            try:
                status = path.stat()
            except FileNotFoundError as error:  # removed in between
                raise _unknown(name) from error
            version = (status.st_mtime_ns, status.st_size, status.st_ino)
            loaded = self._loaded.pop(name, None)
            if loaded is None or loaded.version != version:
                self.info(name)  # a file that cannot be described is damaged, and not a bug
                try:
                    segmenter = FewShotSegmenter.load(path, self.model, self.device)
                except (InputError, OSError, zlib.error) as error:
                    if is_full(error):
                        raise
                    raise _damaged(name, path, error) from error
                loaded = _Loaded(version, segmenter)
            self._loaded[name] = loaded
            while len(self._loaded) > self.keep:
                self._loaded.popitem(last=False)
            return loaded.segmenter

    def save(self, name: str, segmenter: FewShotSegmenter) -> None:
        """Write the file of a task; a task of that name is replaced.

        Raises:
            DamagedTaskError: there is a link or the like in its place.
        """
        with self._lock:
            segmenter.save(self._place(name))

    def put(self, name: str, data: bytes) -> None:
        """Write an uploaded task file, after it was loaded and has predicted an image.

        Raises:
            InputError: it is not a task, damaged, or of another model; the old file stays.
            DamagedTaskError: there is a link or the like in its place.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.svf"
            path.write_bytes(data)
            try:
                self._try(path)
            except Exception as error:  # a forged file can fail anywhere, in torch too
                if is_full(error):  # the server's, on which parts of it are unpacked
                    raise
                if not isinstance(error, InputError):  # it may be a bug all the same
                    log.warning("an uploaded task file was refused", exc_info=error)
                raise InputError(
                    f"this file is not a task that can be used here ({_brief(path, error)}): send "
                    f"a file that svfseg fit wrote with the model {self.model}"
                ) from error
        with self._lock, replace_file(self._place(name)) as fresh:
            fresh.write_bytes(data)

    def delete(self, name: str) -> None:
        """Remove a task; of a link, the link alone.

        Raises:
            UnknownNameError: there is no such task.
            DamagedTaskError: it is a folder.
        """
        path = self.folder / f"{name}.svf"
        with self._lock:
            if _kind(path) in (None, FOLDER):
                self.path(name)  # raises
            path.unlink(missing_ok=True)
            self._loaded.pop(name, None)

    def _place(self, name: str) -> Path:
        """Where a task is written: through a link, any file of this machine could be replaced."""
        path = self.folder / f"{name}.svf"
        return path if _kind(path) is None else self.path(name)

    def _try(self, path: Path) -> None:
        """Raise an error unless the file is a task that can be used, described and sent."""
        try:
            with zipfile.ZipFile(path) as file:
                unpacked = sum(part.file_size for part in file.infolist())
        except (zipfile.BadZipFile, ValueError, OSError) as error:
            raise InputError(str(error)) from error
        if unpacked > UNPACKED * self.max_bytes:
            raise InputError(f"it unpacks to {unpacked:,} bytes")
        task = read_task(path)
        _check_range("size", task.metadata["size"], 32, MAX_SIZE)
        about = _describe("", task, path)
        try:
            for name in about.classes:
                check_plain(name)
        except ValueError as error:
            raise InputError(f"the name of a class cannot be sent: {error}") from error
        check_positions(task, about.tile)
        segmenter = FewShotSegmenter.load(path, self.model, self.device)
        _check_range("size", segmenter.size or MAX_SIZE, 32, MAX_SIZE)
        _check_range("batch", segmenter.batch, 1, MAX_BATCH)
        _check_range("overlap", segmenter.overlap, 0, MAX_OVERLAP)
        segmenter.predict(np.zeros((64, 64, 3), np.uint8))


def check_positions(task: TaskFile, tile: bool) -> None:
    """Raise InputError for a task whose supports make an answer too slow, or fill the memory.

    Args:
        task: read from its file, and not used yet.
        tile: whether it cuts images into tiles.
    """
    counts = {
        class_id: sum(
            tensor.shape[-1] if tensor.dim() > 1 else 1
            for shot in shots
            for tensor in shot.values()
        )
        for class_id, shots in task.features.items()
    }
    without = counts.pop(0, 0)  # each class is compared with these too
    positions = sum(counts.values()) + len(counts) * without
    most = MAX_COMPARED // task.metadata["size"] ** 2
    most = min(most, MAX_TILED) if tile else most
    if positions > most:
        raise InputError(
            f"its supports have {positions:,} positions, expected at most {most:,} at its size"
        )


def _check_range(name: str, value: float, minimum: float, maximum: float) -> None:
    if not minimum <= value <= maximum:
        raise InputError(f"its {name} is not between {minimum} and {maximum}")


def _kind(path: Path) -> str | None:
    """What is at a path, as an article and a noun: nothing to say of a file, None if none is."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISREG(mode):
        return ""
    return FOLDER if stat.S_ISDIR(mode) else "a link" if stat.S_ISLNK(mode) else "a device or pipe"


def _describe(name: str, task: TaskFile, path: Path) -> TaskInfo:
    try:
        stored = _StoredTask.model_validate(task.metadata)
        thresholds = dict(zip(stored.classes, stored.rules, strict=False))
        about = TaskInfo(
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
    try:
        size = len(about.model_dump_json())
    except ValueError as error:  # such as of half a surrogate, which UTF-8 has not
        raise InputError(f"{path} has settings that cannot be sent: {error}") from error
    if size > MAX_ABOUT:
        raise InputError(f"{path} has {size:,} bytes of settings, expected at most {MAX_ABOUT:,}")
    return about


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
