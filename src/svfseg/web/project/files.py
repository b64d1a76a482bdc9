"""Files of a project, named by their content: written before what refers to them."""

import hashlib
import os
from collections.abc import Collection
from pathlib import Path

from svfseg.files import remove_rests, replace_file

# Hexadecimal digits of a digest in a name; with the rest of the name they tell all files apart.
_DIGITS = 16


class StoredFiles:
    """Files in folders of a project.

    A file's name ends with the digest of its content, so that a file is never changed: what refers
    to a name means one content, and a file that nothing refers to any more can be told from one
    that a person put there.

    Args:
        folder: folder of the project.
        parts: names of the folders in it; made if they are not there.
    """

    def __init__(self, folder: Path, parts: Collection[str]) -> None:
        self.folder = folder
        self.parts = parts
        for part in parts:
            (folder / part).mkdir(parents=True, exist_ok=True)

    def put(self, part: str, stem: str, suffix: str, data: bytes) -> str:
        """Write a file, which is on the disk when this returns, and give its path in the folder.

        Args:
            part: one of the folders.
            stem: begin of its name.
            suffix: end of its name.
            data: its content.

        Raises:
            OSError: the disk is full, or cannot be written.
        """
        name = f"{part}/{stem}-{digest_of(data)}{suffix}"
        path = self.folder / name
        if path.is_file() and path.read_bytes() == data:
            return name
        with replace_file(path) as fresh, fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return name

    def drop(self, name: str) -> None:
        """Remove a file that nothing refers to."""
        (self.folder / name).unlink(missing_ok=True)

    def sweep(self, kept: Collection[str]) -> None:
        """Remove what a stop left: unfinished files, and whole ones that nothing refers to.

        A file whose name does not hold the digest of its content is somebody else's, and stays.

        Args:
            kept: paths in the folder that something refers to.
        """
        for part in self.parts:
            remove_rests(self.folder / part)
            for path in (self.folder / part).iterdir():
                if f"{part}/{path.name}" in kept or path.is_symlink() or not path.is_file():
                    continue
                digest = path.stem.rpartition("-")[2]
                if len(digest) == _DIGITS and digest == digest_of(path.read_bytes()):
                    path.unlink()


def digest_of(data: bytes) -> str:
    """Hash a content."""
    return hashlib.sha256(data).hexdigest()[:_DIGITS]
