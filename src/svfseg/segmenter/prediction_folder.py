"""A folder of predictions: one writer, a log of what was written, and nothing of others replaced.

Each line of the log names an image by its whole path and a digest of its file, and the files that
were written of it. What is not in the log belongs to somebody else and stays.
"""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from svfseg.annotations.names import SHARED, stem_for
from svfseg.errors import InputError
from svfseg.files import append_line, remove_rests, write_bytes, write_text
from svfseg.segmenter.report import LOG, read_log

logger = logging.getLogger(__name__)
LOCK, BEGUN = ".svfseg.lock", ".svfseg.begun"


class PredictionFolder:
    """The folder that `predict_folder` writes; open it as a context."""

    def __init__(
        self, out: Path, task: str, formats: Sequence[str], classes: int, overwrite: bool = False
    ) -> None:
        """Name the folder; nothing is written yet.

        Args:
            out: the folder.
            task: what tells the task from others.
            formats: names of the formats.
            classes: number of classes.
            overwrite: replace files that are not in the log; images that are read never are.
        """
        self.out, self.formats, self.classes, self.overwrite = out, formats, classes, overwrite
        self.header = {"task": task, "formats": sorted(formats)}
        self.lines: dict[str, dict[str, Any]] = {}
        self._lock = FileLock(out / LOCK, timeout=0)
        self._renamed: set[str] = set()
        self._is_new = False
        self._own: set[Path] = set()
        self._written: dict[str, dict[str, list[int]]] = {}  # by name, as they were when written
        self._begun: set[str] = set()

    def __enter__(self) -> Self:
        """Take the folder's lock and read its log.

        Raises:
            InputError: another process writes there, or it holds something else's predictions.
        """
        self._is_new = not self.out.exists()
        self.out.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise InputError(
                f"another svfseg predict writes to {self.out}: wait for its end, or choose another "
                "folder", settings=("out",),
            ) from error  # fmt: skip
        try:
            self._read()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Let others write; where nothing was written, leave nothing."""
        self._lock.release()
        if not (self.out / LOG).exists():
            for name in (LOCK, BEGUN):
                (self.out / name).unlink(missing_ok=True)
            if self._is_new:
                with contextlib.suppress(OSError):  # something else came meanwhile
                    self.out.rmdir()

    def _read(self) -> None:
        for part in ("", "coco", "labels", "probability"):
            remove_rests(self.out / part)
        log = self.out / LOG
        if not log.exists():
            return
        head, lines = read_log(self.out)
        if head is None:
            return
        task, formats = head.get("task"), head.get("formats")
        if task != self.header["task"]:
            raise InputError(
                f"{self.out} holds predictions of another task: choose another folder, or remove "
                "it", settings=("out",),
            )  # fmt: skip
        if formats != self.header["formats"]:
            named = " ".join(map(str, formats)) if isinstance(formats, list) else formats
            raise InputError(
                f"{self.out} was made with the formats {named}: give those again, or choose "
                "another folder", settings=("format", "out"),
            )  # fmt: skip
        known = {Path(line["mask"]).stem: line for line in lines if "left_out" not in line}
        for stem, line in known.items():
            names = self._files_of_line(stem, line)
            self._own |= {(self.out / name).resolve() for name in names}
            self._written[stem] = line.get("written", {})
            if all((self.out / name).is_file() for name in names):
                self.lines[stem] = line
        # what a stop cut off is written anew
        write_text(log, "".join(json.dumps(line) + "\n" for line in (head, *known.values())))
        if (self.out / BEGUN).is_file():
            names = os.fsdecode((self.out / BEGUN).read_bytes()).splitlines()
            self._own |= {(self.out / name).resolve() for name in names}
            self._begun = set(names)

    def begin(self) -> None:
        """Write the head of a new log."""
        if not (self.out / LOG).exists() or not (self.out / LOG).stat().st_size:
            write_text(self.out / LOG, json.dumps(self.header) + "\n")

    def begin_image(self, stem: str) -> None:
        """Write down that the files of an image come next: they are its own after a kill.

        Args:
            stem: what `stem_of` gave.
        """
        names = self.files_of(stem)
        write_bytes(self.out / BEGUN, os.fsencode("".join(f"{name}\n" for name in names)))
        self._own |= {(self.out / name).resolve() for name in names}

    def own_files(self) -> set[Path]:
        """Give the resolved paths of all files of this and earlier calls."""
        return self._own

    def stem_of(self, image: Path) -> str:
        """Give the name, without its end, that the files of an image get.

        It is the image's own, unless it is too long, is nothing but dots, or is the name of a file
        of a format itself; another name is said once.
        """
        plain = image.name.removesuffix(image.suffix)
        stem = stem_for(image.name, self.formats)
        if stem != plain and image.name not in self._renamed:
            self._renamed.add(image.name)
            logger.warning("the files of %s are called %s", image.name, stem)
        return stem

    def files_of(self, stem: str) -> list[str]:
        """List the files that an image leaves, as paths in the folder."""
        parts = [""] if self.classes == 1 else [f"{i}/" for i in range(1, self.classes + 1)]
        by_format = {
            "coco": [f"coco/{stem}.json"],
            "yolo": [f"labels/{stem}.txt"],
            "labelme": [f"{stem}.json"],
            "geojson": [f"{stem}.geojson"],
            "probability": [f"probability/{part}{stem}.png" for part in parts],
        }
        names = [f"{stem}.png", f"{stem}_overlay.jpg"]
        return names + [name for each in self.formats for name in by_format.get(each, [])]

    def _files_of_line(self, stem: str, line: Mapping[str, Any]) -> list[str]:
        return list(line.get("files") or self.files_of(stem))

    def check(self, images: Sequence[Path]) -> None:
        """Find out before any work whether a file of somebody else would be replaced.

        Args:
            images: all images that are to be outlined.

        Raises:
            InputError: a file to be written is an image that is read, is not a regular file, is of
                another image, or is there and not in the log.
        """
        sources = {path.resolve() for path in images}
        own = self.own_files()
        shared = [self.out / SHARED[each] for each in self.formats if each in SHARED]
        for target in shared:
            self._check_file(target, sources, {target.resolve()} if own else set())
        stems: dict[str, Path] = {}
        for image in images:
            self.check_image(image, sources, stems)

    def check_image(self, image: Path, sources: set[Path], stems: dict[str, Path]) -> None:
        """Find out whether the files of one image may be written, and take its name.

        Args:
            image: the image.
            sources: resolved paths of all images that are read.
            stems: names that are taken, and by which image; this one's is added.

        Raises:
            InputError: see `check`.
        """
        stem = self.stem_of(image)
        if stem in stems:
            raise InputError(
                f"{stems[stem]} and {image} have one name: their masks would overwrite each other"
            )
        line = self.lines.get(stem)
        if line is not None and not self.overwrite and not self.is_of(image, line):
            raise InputError(
                f"{self.out / line['mask']} is of {line['image']}, which has the name of "
                f"{image}: choose another folder", settings=("out", "overwrite"),
            )  # fmt: skip
        for name in self.files_of(stem):
            self._check_file(self.out / name, sources, self._own)
        changed = self._changed(stem)
        if changed and not self.overwrite and not self.is_done(image):
            raise InputError(
                f"{self.out / changed[0]} was changed since it was written, and would be replaced, "
                f"as {image} is to be outlined anew: move it away, or choose another folder",
                settings=("out", "overwrite"),
            )
        stems[stem] = image

    def _changed(self, stem: str) -> list[str]:
        """Name the files of an image that somebody changed since they were written."""
        return [
            name
            for name, state in self._written.get(stem, {}).items()
            if name not in self._begun and (self.out / name).is_file()
            and _content_state(self.out / name) != state
        ]  # fmt: skip

    def _check_file(self, target: Path, sources: set[Path], own: set[Path]) -> None:
        if not os.path.lexists(target):
            return
        resolved = target.resolve()
        if resolved in sources:
            raise InputError(
                f"{target} is one of the images that are read, and would be replaced by a mask: "
                "choose another folder", settings=("out",),
            )  # fmt: skip
        if target.exists() and not target.is_file():
            raise InputError(f"{target} is not a regular file: choose another folder",
                             settings=("out",))  # fmt: skip
        if resolved not in own and not self.overwrite:
            raise InputError(
                f"{target} is there already, and was not written by this command: choose another "
                "folder", settings=("out", "overwrite"),
            )  # fmt: skip

    def is_of(self, image: Path, line: Mapping[str, Any]) -> bool:
        """Whether a line is of an image: of its path, or of the same content elsewhere."""
        if line["image"] == os.path.abspath(image):
            return True
        return "digest" in line and line["digest"] == digest_of(image)

    def is_done(self, image: Path) -> bool:
        """Whether an image has its line, and is the one that it had when it got it."""
        stem = self.stem_of(image)
        line = self.lines.get(stem)
        if line is None:
            return False
        if not image.is_file():
            return bool(line["image"] == os.path.abspath(image))
        if line["image"] == os.path.abspath(image) and line.get("state") == state_of(image):
            return True
        if line.get("digest") != digest_of(image):
            return False
        self.add(stem, {**line, "image": os.path.abspath(image), "state": state_of(image)})
        return True

    def add(self, stem: str, line: dict[str, Any]) -> None:
        """Write the line of an image that is done."""
        files = {name: self.out / name for name in self.files_of(stem)}
        line.setdefault(
            "written", {n: _content_state(path) for n, path in files.items() if path.is_file()}
        )
        self.lines[stem] = line
        self.write(line)

    def write(self, line: Mapping[str, Any]) -> None:
        """Add a line to the log."""
        append_line(self.out / LOG, json.dumps(line))


def digest_of(image: Path) -> str:
    """Hash the content of a file.

    Raises:
        InputError: it is not a regular file; a pipe would never end.
    """
    if image.exists() and not image.is_file():
        raise InputError(f"{image} is not a regular file: give a picture")
    with image.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _content_state(path: Path) -> list[int]:
    """Give what changes with a file's content, and is kept where a folder is copied with times."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def state_of(image: Path) -> list[int]:
    """Give what changes with a file's content: its size, and its two times of change, in ns."""
    status = image.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
