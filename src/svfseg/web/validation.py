"""Say what is wrong with data from outside, and read files of typed state."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError

from svfseg.errors import InputError
from svfseg.files import read_json

T = TypeVar("T")


def first_problem(error: ValidationError | RequestValidationError) -> str:
    """Say where the first problem is, and what it is."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "all of it"
    return f"{where}: {first['msg']}"


def read_state(path: Path, kind: type[T], defaults: Mapping[str, Any]) -> T:
    """Read a JSON file of typed state; a key that it lacks has its default.

    Args:
        path: the file.
        kind: a TypedDict.
        defaults: the state of something new.

    Raises:
        InputError: it is damaged.
    """
    try:
        stored = read_json(path)
    except InputError as error:
        raise InputError(f"{error}: restore it, or remove it") from error
    if not isinstance(stored, dict):
        raise InputError(f"{path} is damaged (it is not an object): restore it, or remove it")
    try:
        return TypeAdapter(kind).validate_python({**defaults, **stored})
    except ValidationError as error:
        raise InputError(
            f"{path} is damaged ({first_problem(error)}): restore it, or remove it"
        ) from error
