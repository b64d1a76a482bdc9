"""An embedded database in one file: each change is one transaction, written whole or not at all."""

import errno
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from svfseg.errors import InputError

# Errors of SQLite that are the disk's: full, or not to be read or written.
_OF_THE_DISK = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_READONLY: errno.EROFS,
}


class Database:
    """A database of SQLite; all methods may be called from any thread.

    Args:
        path: its file; made with the tables of ``schema`` if it is not there.
        schema: statements that make the tables.
        version: version of the schema, from 1.

    Raises:
        InputError: the file is damaged, of something else, or of a later version.
        OSError: the disk is full, or cannot be read or written.
    """

    def __init__(self, path: Path, schema: str, version: int) -> None:
        self.path = path
        self.lock = threading.RLock()
        with _explained(path):
            # a thread at a time uses it, behind the lock; transactions begin where we say so
            self._sql = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(schema, version)
        except BaseException:
            self._sql.close()
            raise

    def _prepare(self, schema: str, version: int) -> None:
        with _explained(self.path):
            found = int(self._sql.execute("PRAGMA user_version").fetchone()[0])
            if found > version:
                raise InputError(
                    f"{self.path} was written by a later version of svfseg: update svfseg, or open "
                    "another project"
                )
            self._sql.execute("PRAGMA journal_mode = WAL")
            self._sql.execute("PRAGMA synchronous = FULL")
            if found == 0:
                statements = f"BEGIN; {schema}; PRAGMA user_version = {version}; COMMIT"
                self._sql.executescript(statements)
            problem = self._sql.execute("PRAGMA quick_check(1)").fetchone()[0]
            self._sql.execute("PRAGMA foreign_keys = ON")
        if problem != "ok":
            raise InputError(_damaged(self.path, problem))

    def read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """Give all rows that a query finds.

        Raises:
            InputError: the file is damaged.
            OSError: the disk cannot be read.
        """
        with self.lock, _explained(self.path):
            return self._sql.execute(query, values).fetchall()

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """Make one change of several statements; on an exception none of them was made.

        Raises:
            InputError: the file is damaged.
            OSError: the disk is full, or cannot be written.
        """
        with self.lock, _explained(self.path):
            self._sql.execute("BEGIN IMMEDIATE")
            try:
                yield self._sql
                self._sql.execute("COMMIT")
            except BaseException:
                if self._sql.in_transaction:  # a full disk ends it by itself
                    self._sql.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the file; nothing can be read or changed any more."""
        with self.lock:
            self._sql.close()


@contextmanager
def made_whole(path: Path, opened: Callable[[Path], Database]) -> Iterator[Database]:
    """Make a database beside its place; it is there once all went well, or not at all.

    Args:
        path: its place.
        opened: makes or opens one at a path.
    """
    fresh = path.with_name(path.name + ".new")
    for end in ("", "-wal", "-shm"):  # of a stop before
        Path(f"{fresh}{end}").unlink(missing_ok=True)
    database = opened(fresh)
    try:
        yield database
    finally:
        database.close()
    os.replace(fresh, path)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn errors of SQLite into those of the disk, or of a damaged file."""
    try:
        yield
    except sqlite3.OperationalError as error:
        number = _OF_THE_DISK.get(error.sqlite_errorcode & 0xFF)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise
        raise InputError(_damaged(path, error)) from error


def _damaged(path: Path, why: object) -> str:
    return f"{path} is damaged ({why}): restore it from a copy, or start a new project"
