"""Open a project of before there was a database: project.json, masks/ and found/ by image names.

It is migrated once: the database is made under another name, then takes its own, then the old files
are moved to a folder of their own, as a copy. A stop at any moment leaves the one or the other.
"""

import logging
from pathlib import Path
from sqlite3 import Connection
from typing import NotRequired

import numpy as np
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from svfseg.data.masks import read_mask
from svfseg.errors import InputError
from svfseg.files import read_json
from svfseg.web.database import made_whole
from svfseg.web.project.files import StoredFiles, digest_of
from svfseg.web.project.tables import open_tables
from svfseg.web.validation import read_state

logger = logging.getLogger(__name__)
STATE, TASK, KEPT = "project.json", "task.svf", "before-migration"


class _OldResult(TypedDict):
    confidence: list[float]
    present: list[bool]
    fit: int


class _OldImage(TypedDict):
    width: int
    height: int
    original: str
    marked: list[int]
    without: NotRequired[bool]
    found: NotRequired[_OldResult]
    version: int


class _OldState(TypedDict):
    classes: list[str]  # names of the ids 1, 2 ...
    images: dict[str, _OldImage]  # name of a file in images/ -> what is known of it
    learned: int  # number of classes, the first ones, that were learned
    thresholds: list[float]
    as_learned: list[float]
    fits: int
    ticks: int


def is_of_before(folder: Path) -> bool:
    """Say whether a folder holds a project of before there was a database.

    A backend of Label Studio wrote a file of that name too, without images.
    """
    if not (folder / STATE).is_file():
        return False
    content = read_json(folder / STATE)
    return not isinstance(content, dict) or "label_config" not in content


def migrate(folder: Path, database: Path, files: StoredFiles) -> None:
    """Make the database of an old project; the images stay where they are.

    Args:
        folder: folder of the project.
        database: where the database comes; it is there whole, or not at all.
        files: files of the project.

    Raises:
        InputError: project.json is damaged.
    """
    new = {"learned": 0, "thresholds": [], "as_learned": [], "fits": 0, "ticks": 0}
    state = read_state(folder / STATE, _OldState, {"classes": ["thing"], "images": {}, **new})
    with made_whole(database, open_tables) as tables, tables.change() as sql:
        sql.execute("DELETE FROM classes")
        sql.executemany("INSERT INTO classes VALUES (?, ?)", enumerate(state["classes"], 1))
        revision = max(2, state["ticks"])
        sql.execute("UPDATE project SET revision = ?, classes_revision = ?, marks_revision = ?",
                    [revision] * 3)  # fmt: skip
        learned = _save_fit(sql, folder, state, files)
        for number, (name, image) in enumerate(state["images"].items(), start=1):
            _save_image(sql, folder, number, name, image)
            if learned and "found" in image:
                _save_results(sql, folder, files, number, name, image["found"], learned)
            _save_marks(sql, folder, files, number, name, image, len(state["classes"]))


def _save_fit(sql: Connection, folder: Path, state: _OldState, files: StoredFiles) -> int:
    """Give the number of classes that were learned."""
    learned, thresholds = state["learned"], state["thresholds"]
    path = folder / TASK
    if not learned or not path.is_file():
        return 0
    if not learned == len(thresholds) == len(state["as_learned"]) or learned > len(
        state["classes"]
    ):
        logger.warning("what was learned in %s does not fit its classes: learn again", folder)
        return 0
    file = files.put("tasks", "task", ".svf", path.read_bytes())
    sql.execute("INSERT INTO fits VALUES (?, ?)", [max(1, state["fits"]), file])
    rows = zip(thresholds, state["as_learned"], strict=True)
    for place, (threshold, before) in enumerate(rows):
        sql.execute("INSERT INTO learned VALUES (?, ?, ?, ?, ?)",
                    [max(1, state["fits"]), place, place + 1, threshold, before])  # fmt: skip
    return learned


def _save_image(sql: Connection, folder: Path, number: int, name: str, image: _OldImage) -> None:
    path = folder / "images" / name
    digest = digest_of(path.read_bytes()) if path.is_file() else ""
    sql.execute(
        "INSERT INTO images (id, name, file, original, digest, width, height, without, "
        "marks_revision, version) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [number, name, f"images/{name}", image["original"], digest, image["width"],
         image["height"], image.get("without", False), image["version"], image["version"]],
    )  # fmt: skip


def _save_marks(
    sql: Connection, folder: Path, files: StoredFiles, number: int, name: str, image: _OldImage,
    classes: int,
) -> None:  # fmt: skip
    if not image["marked"]:
        return
    path = folder / "masks" / f"{Path(name).stem}.png"
    try:
        found = set(np.unique(read_mask(path)).tolist())
    except InputError as error:
        logger.warning("the marks of %s are left out: %s", name, error)
        return
    file = files.put("marks", Path(name).stem, ".png", path.read_bytes())
    sql.execute("UPDATE images SET mask = ? WHERE id = ?", [file, number])
    marked = [(number, class_id) for class_id in range(1, classes + 1) if class_id in found]
    sql.executemany("INSERT INTO marked VALUES (?, ?)", marked)


def _save_results(
    sql: Connection, folder: Path, files: StoredFiles, number: int, name: str, found: _OldResult,
    learned: int,
) -> None:  # fmt: skip
    stem = Path(name).stem
    paths = [folder / "found" / stem / f"{i}.png" for i in range(1, learned + 1)]
    lengths = {len(found["confidence"]), len(found["present"])}
    if lengths != {learned} or not all(path.is_file() for path in paths):
        return  # it is predicted anew when a person asks for it
    rows = zip(paths, found["confidence"], found["present"], strict=True)
    for class_id, (path, confidence, present) in enumerate(rows, start=1):
        file = files.put("results", f"{stem}-{class_id}", ".png", path.read_bytes())
        sql.execute("INSERT INTO results VALUES (?, ?, ?, ?, ?, ?)",
                    [number, class_id, found["fit"], file, confidence, present])  # fmt: skip


def finish_migration(folder: Path) -> None:
    """Move the files of the old project to a folder of their own, once the database is there."""
    if not (folder / STATE).is_file():
        return
    (folder / KEPT).mkdir(exist_ok=True)
    for name in ("masks", "found", TASK, STATE):  # the last one says that there is something to do
        if (folder / name).exists() and not (folder / KEPT / name).exists():
            (folder / name).rename(folder / KEPT / name)
    logger.warning(
        "%s was brought to the form of this version; as it was, it is kept in %s",
        folder, folder / KEPT,
    )  # fmt: skip
