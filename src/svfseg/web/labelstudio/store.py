"""The folder of a backend of Label Studio, in which each request is one transaction."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from svfseg.errors import InputError
from svfseg.files import remove_rests
from svfseg.web.labelstudio.migration import finish_migration, is_of_before, migrate
from svfseg.web.labelstudio.tables import (
    BackendState,
    SupportRecord,
    open_tables,
    read_support,
    write_support,
    written_id,
)

DATABASE, TASK = "labelstudio.sqlite", "task.svf"
_OF_THE_PAGE = "project.sqlite"


class Submitted(NamedTuple):
    """An annotation that takes the place of an older one of its task.

    Attributes:
        task: id of the task in Label Studio.
        annotation: id of the annotation there.
        image: address of the task's image.
        result: the annotation's results, as Label Studio sent them.
    """

    task: int
    annotation: int | str | None
    image: str
    result: list[Any]


class Removed(NamedTuple):
    """An annotation that counts no longer, by its id."""

    annotation: int | str


class BackendStore:
    """The folder of a backend: labelstudio.sqlite, and task.svf, what was fitted last.

    Any thread may call.

    Args:
        folder: the folder; made if it is not there.

    Raises:
        InputError: the folder is damaged, open in another program, or of a page's project.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if (folder / _OF_THE_PAGE).exists():
            raise InputError(
                f"{folder} holds a project of svfseg app: give another folder",
                settings=("project",),
            )
        folder.mkdir(parents=True, exist_ok=True)
        # a lock of the process: the thread that closes a folder is not the one that opened it
        self._open = FileLock(folder / ".lock", thread_local=False)
        try:
            self._open.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"{folder} is open in another program: stop that, or give another folder",
                settings=("project",),
            ) from None
        try:
            remove_rests(folder)
            if is_of_before(folder) and not (folder / DATABASE).is_file():
                migrate(folder, folder / DATABASE)
            finish_migration(folder)
            self.database = open_tables(folder / DATABASE)
        except BaseException:
            self._open.release()
            raise
        self._state: BackendState | None = None

    @property
    def task_path(self) -> Path:
        """The file of what was fitted last."""
        return self.folder / TASK

    @property
    def state(self) -> BackendState:
        """What is known of the project."""
        with self.database.lock:
            if self._state is None:
                self._state = BackendState(*self.database.read("SELECT * FROM project")[0])
            return self._state

    def close(self) -> None:
        """Let other programs open the folder."""
        self.database.close()
        self._open.release()

    def check_owner(self, number: int | None) -> None:
        """Raise InputError if a request is of another project than the annotations here."""
        owner = self.state.number
        if None not in (number, owner) and number != owner:
            raise InputError(
                f"the event is of project {number}, {self.folder} belongs to project {owner}: "
                "start another backend with its own folder"
            )

    def apply(
        self,
        changes: Sequence[Submitted | Removed] = (),
        number: int | None = None,
        label_config: str | None = None,
    ) -> bool:
        """Make the changes of one request, all of them or none.

        Args:
            changes: changes of the annotations, in their order.
            number: id of the project in Label Studio; it is kept with the first annotation.
            label_config: the labeling configuration; None keeps the present one.

        Returns:
            Whether the annotations changed.

        Raises:
            InputError: the request is of another project.
            OSError: the disk is full, or cannot be written.
        """
        with self.database.lock:
            self.check_owner(number)
            state = self.state
            edits = state.edits
            with self.database.change() as sql:
                for change in changes:
                    if isinstance(change, Submitted):
                        edits += 1
                        write_support(sql, {**change._asdict(), "edit": edits})  # type: ignore[typeddict-item]
                    else:
                        gone = sql.execute(
                            "DELETE FROM supports WHERE annotation = ?",
                            [written_id(change.annotation)],
                        )
                        edits += gone.rowcount > 0
                new = state._replace(
                    edits=edits,
                    number=number if state.number is None and edits else state.number,
                    label_config=label_config or state.label_config,
                )
                if new != state:
                    sql.execute(
                        "UPDATE project SET edits = ?, number = ?, label_config = ?",
                        [new.edits, new.number, new.label_config],
                    )
            self._state = new
            return edits != state.edits

    def begin_fit(self) -> int:
        """Take a number for what is fitted, and give it.

        It is taken before task.svf is written, so that no number stands for two tasks after a stop
        between the two.

        Raises:
            OSError: the disk is full, or cannot be written.
        """
        with self.database.lock:
            with self.database.change() as sql:
                sql.execute("UPDATE project SET fits = fits + 1")
            self._state = None
            return self.state.fits

    def end_fit(self, edits: int) -> None:
        """Store which changes are in task.svf.

        Args:
            edits: number of the last one.

        Raises:
            OSError: the disk is full, or cannot be written.
        """
        with self.database.lock:
            with self.database.change() as sql:
                sql.execute("UPDATE project SET fitted = ?", [edits])
            self._state = None

    def tasks(self) -> list[int]:
        """List the ids of the tasks that have an annotation, that with the newest one first."""
        rows = self.database.read("SELECT task FROM supports ORDER BY edit DESC")
        return [task for (task,) in rows]

    def support(self, task: int) -> SupportRecord | None:
        """Read the annotation of a task; None where it was removed.

        Raises:
            InputError: it is damaged.
        """
        return read_support(self.database, task)
