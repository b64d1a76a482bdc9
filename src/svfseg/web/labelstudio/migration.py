"""Open a backend's folder of before there was a database: project.json, and a file for each task.

It is migrated once: the database is made under another name, then takes its own, then the old files
are moved to a folder of their own, as a copy. A stop at any moment leaves the one or the other.
"""

import logging
import shutil
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from svfseg.errors import InputError
from svfseg.files import read_json, remove_rests, replace_file
from svfseg.web.database import made_whole
from svfseg.web.labelstudio.tables import LEAST, MOST, SupportRecord, open_tables, write_support
from svfseg.web.validation import first_problem, read_state

log = logging.getLogger("svfseg.labelstudio")
STATE, SUPPORTS, TASK, KEPT = "project.json", "supports", "task.svf", "before-migration"


class _OldState(TypedDict):
    project: int | None
    label_config: str | None
    fits: int
    edits: int
    fitted: int


def is_of_before(folder: Path) -> bool:
    """Say whether a folder holds what a backend wrote before there was a database."""
    return (folder / STATE).is_file() or (folder / SUPPORTS).is_dir()


def migrate(folder: Path, database: Path) -> None:
    """Make the database of an old folder.

    Args:
        folder: folder of the backend.
        database: where the database comes; it is there whole, or not at all.

    Raises:
        InputError: a file is damaged, or of a project of svfseg app.
    """
    state: _OldState = {
        "project": None, "label_config": None, "fits": 0, "edits": 0, "fitted": 0,
    }  # fmt: skip
    if (folder / STATE).is_file():
        state = read_state(folder / STATE, _OldState, state)
        if "classes" in read_json(folder / STATE):
            raise InputError(
                f"{folder} holds a project of svfseg app: give another folder",
                settings=("project",),
            )
    records = [_read_record(path) for path in sorted((folder / SUPPORTS).glob("*.json"))]
    kept = [each for each in records if LEAST <= each["task"] <= MOST]
    if len(kept) < len(records):
        log.warning("%d annotation(s) of tasks whose ids are too large are left out",
                    len(records) - len(kept))  # fmt: skip
    number = state["project"]
    if number is not None and not LEAST <= number <= MOST:
        number = None
    # a stop could keep an annotation and not count it
    edits = max([state["edits"], *(each["edit"] for each in kept)])
    with made_whole(database, open_tables) as tables, tables.change() as sql:
        sql.execute(
            "UPDATE project SET number = ?, label_config = ?, fits = ?, edits = ?, fitted = ?",
            [number, state["label_config"], state["fits"], edits, state["fitted"]],
        )
        for record in sorted(kept, key=lambda each: each["edit"]):
            write_support(sql, record)


def finish_migration(folder: Path) -> None:
    """Move the files of before to a folder of their own, once the database is there."""
    kept = folder / KEPT
    left = [name for name in (SUPPORTS, STATE) if (folder / name).exists()]
    left = [name for name in left if not (kept / name).exists()]
    if not left:
        return
    kept.mkdir(exist_ok=True)
    remove_rests(kept)
    if (folder / TASK).is_file():  # it goes on being used
        with replace_file(kept / TASK) as fresh:
            shutil.copyfile(folder / TASK, fresh)
    for name in left:  # the last one says that there is something to do
        (folder / name).rename(kept / name)
    log.warning("%s was brought to the form of this version; as it was, it is kept in %s",
                folder, kept)  # fmt: skip


def _read_record(path: Path) -> SupportRecord:
    try:
        return TypeAdapter(SupportRecord).validate_python(read_json(path))
    except ValidationError as error:
        raise InputError(f"{path} is damaged ({first_problem(error)}): remove it") from error
