"""The tables of a backend of Label Studio, and the records in them."""

import json
import sqlite3
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from svfseg.errors import InputError
from svfseg.web.database import Database

VERSION = 1
# A record's content is JSON, compressed: a brush mask is a list of numbers as text.
SCHEMA = """
CREATE TABLE project (
    number INTEGER,
    label_config TEXT,
    fits INTEGER NOT NULL,
    edits INTEGER NOT NULL,
    fitted INTEGER NOT NULL
);
CREATE TABLE supports (
    task INTEGER PRIMARY KEY,
    edit INTEGER NOT NULL,
    annotation TEXT NOT NULL,
    content BLOB NOT NULL
);
INSERT INTO project VALUES (NULL, NULL, 0, 0, 0);
"""
# Numbers that a table holds.
LEAST, MOST = -(2**63), 2**63 - 1


class SupportRecord(TypedDict):
    """The newest annotation of a task.

    Attributes:
        task: id of the task in Label Studio.
        edit: number of the change that brought it; larger is newer.
        annotation: id of the annotation in Label Studio.
        image: address of the task's image.
        result: the annotation's results, as Label Studio sent them.
    """

    task: int
    edit: int
    annotation: int | str | None
    image: str
    result: list[Any]


class BackendState(NamedTuple):
    """What is known of the project in Label Studio.

    Attributes:
        number: its id there; None before the first annotation.
        label_config: its labeling configuration; None before it was set up.
        fits: number of the fits so far, the last of which may be unfinished.
        edits: number of changes to the annotations so far.
        fitted: the value of ``edits`` that was fitted last.
    """

    number: int | None = None
    label_config: str | None = None
    fits: int = 0
    edits: int = 0
    fitted: int = 0


def open_tables(path: Path) -> Database:
    """Open the database of a backend, or make an empty one.

    Raises:
        InputError: the file is damaged, or of a later version.
        OSError: the disk is full, or cannot be read or written.
    """
    return Database(path, SCHEMA, VERSION)


def write_support(sql: sqlite3.Connection, record: SupportRecord) -> None:
    """Store an annotation in place of an older one of its task."""
    content = json.dumps({"image": record["image"], "result": record["result"]})
    sql.execute(
        "INSERT OR REPLACE INTO supports VALUES (?, ?, ?, ?)",
        [record["task"], record["edit"], written_id(record["annotation"]),
         zlib.compress(content.encode())],
    )  # fmt: skip


def read_support(database: Database, task: int) -> SupportRecord | None:
    """Read the annotation of a task; None where it was removed.

    Raises:
        InputError: it is damaged.
    """
    rows = database.read("SELECT edit, annotation, content FROM supports WHERE task = ?", [task])
    if not rows:
        return None
    edit, annotation, content = rows[0]
    try:
        held = json.loads(zlib.decompress(content))
        return {"task": task, "edit": edit, "annotation": json.loads(annotation),
                "image": held["image"], "result": held["result"]}  # fmt: skip
    except (ValueError, TypeError, KeyError, zlib.error) as error:
        raise InputError(f"its record in {database.path} is damaged: submit it again") from error


def written_id(annotation: int | str | None) -> str:
    """Write an annotation's id so that a number differs from its digits."""
    return json.dumps(annotation)
