"""Say what is wrong with data from outside, check names, and read files of typed state."""

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, TypeAdapter, ValidationError

from svfseg.errors import InputError
from svfseg.files import read_json

T = TypeVar("T")

MAX_TEXT = 200
# Control characters, halves of surrogates (UTF-8 has none), separators of lines and paragraphs.
_NOT_PLAIN = frozenset({"Cc", "Cs", "Zl", "Zp"})


def check_plain(text: str) -> str:
    """Give back a name that can be stored, shown on one line and sent as UTF-8.

    Args:
        text: the name.

    Raises:
        ValueError: it is blank or too long, or has a character that cannot be shown.
    """
    if not text.strip():
        raise ValueError("it is blank: expected a name")
    if len(text) > MAX_TEXT:
        raise ValueError(f"it has {len(text):,} characters: expected at most {MAX_TEXT}")
    for character in text:
        if unicodedata.category(character) in _NOT_PLAIN:
            raise ValueError(f"it has the character U+{ord(character):04X}: expected plain text")
    return text


# The name of a class and the like.
PlainText = Annotated[str, AfterValidator(check_plain)]


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
