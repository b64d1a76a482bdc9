"""A project's folder: its lock, its database, and the files that the database refers to."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection

from filelock import FileLock, Timeout

from svfseg.errors import InputError
from svfseg.web.errors import UnknownNameError
from svfseg.web.project.files import StoredFiles
from svfseg.web.project.migration import finish_migration, is_of_before, migrate
from svfseg.web.project.records import ImageRecord, ProjectState
from svfseg.web.project.tables import files_of, open_tables, read_image, read_state

DATABASE = "project.sqlite"
IMAGES, MARKS, RESULTS, TASKS = PARTS = ("images", "marks", "results", "tasks")


@dataclass
class Change:
    """A transaction, the revision that it leads to, and files that it may leave without use."""

    sql: Connection
    revision: int
    left: list[str]


class ProjectStore:
    """What lies in the folder of a project; each change is one transaction.

    Any thread may call. The folder holds project.sqlite and the files that it refers to: images/ as
    they came, marks/ (ids), results/ (probability in 1/255) and tasks/. It can be copied to another
    machine once it is closed.

    Args:
        folder: folder of the project; made if it is not there.

    Raises:
        InputError: the folder holds something else, a damaged project, or one that is open.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        before = is_of_before(folder)
        if folder.is_dir() and not before and _is_of_something_else(folder):
            raise InputError(
                f"{folder} is not a project: expected {DATABASE} in it, or an empty folder; to "
                "work on the images in it, name a new folder for the project, and this one as "
                "images",
                settings=("images",),
            )
        folder.mkdir(parents=True, exist_ok=True)
        # a lock of the process: the thread that closes a project is not the one that opened it
        self._open = FileLock(folder / ".lock", thread_local=False)
        try:
            self._open.acquire(timeout=0)
        except Timeout:
            raise InputError(f"{folder} is open in another program: use that, or stop it") from None
        try:
            self.files = StoredFiles(folder, PARTS)
            if before and not (folder / DATABASE).is_file():
                migrate(folder, folder / DATABASE, self.files)
            finish_migration(folder)
            self.database = open_tables(folder / DATABASE)
            self.files.sweep(files_of(self.database))
            self._state: ProjectState | None = read_state(self.database)
        except BaseException:
            self._open.release()
            raise
        self.lock = self.database.lock
        self.revision = self._state.revision
        self._readers = 0
        self._left: list[str] = []

    def close(self) -> None:
        """Let other programs open the folder."""
        self.database.close()
        self._open.release()

    @property
    def state(self) -> ProjectState:
        """The project at its present revision."""
        with self.lock:
            if self._state is None:
                self._state = read_state(self.database)
            return self._state

    @contextmanager
    def reading(self) -> Iterator[ProjectState]:
        """Give the project at its present revision; the files of it stay until the end."""
        with self.lock:
            self._readers += 1
            state = self.state
        try:
            yield state
        finally:
            with self.lock:
                self._readers -= 1
                self._drop([])

    @contextmanager
    def change(self) -> Iterator[Change]:
        """Make one change of the project, of several statements, all of them or none.

        Raises:
            OSError: the disk is full, or cannot be written.
        """
        with self.lock:
            with self.database.change() as sql:
                change = Change(sql, self.revision + 1, [])
                sql.execute("UPDATE project SET revision = ?", [change.revision])
                yield change
            self.revision, self._state = change.revision, None
            self._drop(change.left)

    def _drop(self, left: Sequence[str]) -> None:
        """Remove files that nothing refers to, once nobody reads them."""
        self._left.extend(left)
        if self._left and not self._readers:
            for file in set(self._left) - files_of(self.database, self._left):
                self.files.drop(file)
            self._left = []

    def record(self, name: str) -> ImageRecord:
        """Give what is known of an image.

        Raises:
            UnknownNameError: there is no such image.
        """
        image = read_image(self.database, name)
        if image is None:
            raise UnknownNameError(f"{name} is not in this project: reload the page")
        return image

    def path(self, file: str) -> Path:
        """Give the path of a file that a record names.

        Raises:
            InputError: somebody removed it.
        """
        path = self.folder / file
        if not path.is_file():
            raise InputError(
                f"{path} is missing: put it back from a copy of the project, or remove the image"
            )
        return path


def _is_of_something_else(folder: Path) -> bool:
    """Whether a folder holds files and no project; what a stop left of a new one is no file."""
    if (folder / DATABASE).is_file():
        return False
    own = [path for path in folder.iterdir() if path.name in PARTS and path.is_dir()]
    others = [path for path in folder.iterdir() if path not in own and path.name != ".lock"]
    return bool(others) or any(any(path.iterdir()) for path in own)
