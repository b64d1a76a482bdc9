"""The tables of a project, and how they are read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from svfseg.web.database import Database
from svfseg.web.project.records import (
    ClassResult,
    FitRecord,
    ImageRecord,
    LearnedClass,
    ProjectClass,
    ProjectState,
)

VERSION = 1
# AUTOINCREMENT: a number is never used again, so an id means one class for ever.
SCHEMA = """
CREATE TABLE project (
    revision INTEGER NOT NULL,
    classes_revision INTEGER NOT NULL,
    marks_revision INTEGER NOT NULL
);
CREATE TABLE classes (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL);
CREATE TABLE images (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    file TEXT NOT NULL,
    original TEXT NOT NULL,
    digest TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    mask TEXT,
    without INTEGER NOT NULL DEFAULT 0,
    marks_revision INTEGER NOT NULL,
    version INTEGER NOT NULL
);
CREATE TABLE marked (
    image INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    class INTEGER NOT NULL REFERENCES classes (id) ON DELETE CASCADE,
    PRIMARY KEY (image, class)
) WITHOUT ROWID;
CREATE TABLE fits (number INTEGER PRIMARY KEY AUTOINCREMENT, file TEXT NOT NULL);
CREATE TABLE learned (
    fit INTEGER NOT NULL REFERENCES fits (number) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    class INTEGER NOT NULL REFERENCES classes (id),
    threshold REAL NOT NULL,
    as_learned REAL NOT NULL,
    PRIMARY KEY (fit, place)
);
CREATE TABLE results (
    image INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    class INTEGER NOT NULL REFERENCES classes (id) ON DELETE CASCADE,
    fit INTEGER NOT NULL,
    file TEXT NOT NULL,
    confidence REAL NOT NULL,
    present INTEGER NOT NULL,
    PRIMARY KEY (image, class)
);
INSERT INTO project VALUES (1, 1, 1);
INSERT INTO classes (name) VALUES ('thing');
"""
_IMAGE = (
    "SELECT id, name, file, original, width, height, mask, without, marks_revision, version "
    "FROM images"
)


def open_tables(path: Path) -> Database:
    """Open the database of a project, or make one of a project without images.

    Raises:
        InputError: the file is damaged, or of a later version.
        OSError: the disk is full, or cannot be read or written.
    """
    return Database(path, SCHEMA, VERSION)


def read_state(database: Database) -> ProjectState:
    """Read all that a project knows."""
    with database.lock:
        ((revision, classes_revision, marks_revision),) = database.read("SELECT * FROM project")
        classes = database.read("SELECT id, name FROM classes ORDER BY id")
        marked: dict[int, list[int]] = {}
        for image, class_id in database.read("SELECT image, class FROM marked ORDER BY class"):
            marked.setdefault(image, []).append(class_id)
        results: dict[int, list[ClassResult]] = {}
        for image, *rest in database.read(
            "SELECT image, class, confidence, present, fit, file FROM results ORDER BY class"
        ):
            results.setdefault(image, []).append(_result(*rest))
        images = {
            row[1]: _image(row, marked.get(row[0], ()), results.get(row[0], ()))
            for row in database.read(f"{_IMAGE} ORDER BY id")
        }
        return ProjectState(
            revision,
            tuple(ProjectClass(*row) for row in classes),
            classes_revision,
            marks_revision,
            images,
            read_fit(database),
        )


def read_image(database: Database, name: str) -> ImageRecord | None:
    """Read what is known of one image; None where none has that name."""
    with database.lock:
        found = database.read(f"{_IMAGE} WHERE name = ?", [name])
        if not found:
            return None
        number = [found[0][0]]
        marked = database.read("SELECT class FROM marked WHERE image = ? ORDER BY class", number)
        results = database.read(
            "SELECT class, confidence, present, fit, file FROM results WHERE image = ? "
            "ORDER BY class", number,
        )  # fmt: skip
        return _image(found[0], [each for (each,) in marked], [_result(*row) for row in results])


def read_fit(database: Database) -> FitRecord | None:
    """Read what was learned last."""
    with database.lock:
        fits = database.read("SELECT number, file FROM fits ORDER BY number DESC LIMIT 1")
        if not fits:
            return None
        number, file = fits[0]
        learned = database.read(
            "SELECT class, threshold, as_learned FROM learned WHERE fit = ? ORDER BY place",
            [number],
        )
        return FitRecord(number, file, tuple(LearnedClass(*row) for row in learned))


def files_of(database: Database, files: list[str] | None = None) -> set[str]:
    """List the files that a project refers to: all, or those among some."""
    every = (
        "SELECT file FROM images UNION SELECT mask FROM images WHERE mask IS NOT NULL "
        "UNION SELECT file FROM fits UNION SELECT file FROM results"
    )
    if files is None:
        return {file for (file,) in database.read(every)}
    marks = ", ".join("?" * len(files))
    found = database.read(f"SELECT file FROM ({every}) WHERE file IN ({marks})", files)
    return {file for (file,) in found}


def _image(
    row: Sequence[Any], marked: Sequence[int], results: Sequence[ClassResult]
) -> ImageRecord:
    _, name, file, original, width, height, mask, without, marks_revision, version = row
    return ImageRecord(
        name, file, original, width, height, mask, tuple(marked), bool(without),
        marks_revision, version, tuple(results),
    )  # fmt: skip


def _result(class_id: int, confidence: float, present: int, fit: int, file: str) -> ClassResult:
    return ClassResult(class_id, confidence, bool(present), fit, file)
