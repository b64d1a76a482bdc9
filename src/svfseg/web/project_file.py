"""project.json: everything that a page's project knows, as plain typed data."""

import json
from pathlib import Path
from typing import NotRequired

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from svfseg.errors import InputError
from svfseg.files import read_json, replace_file

# A mask is painted with at most this many pixels, and resized to the image's own size.
PAINTED = 4_000_000


class ResultRecord(TypedDict):
    """What was predicted in an image; its probabilities are in files of their own.

    Attributes:
        confidence: confidence of each class that was learned, in [0, 1].
        present: for each class, whether it is in the image.
        fit: number of the fit that predicted it.
    """

    confidence: list[float]
    present: list[bool]
    fit: int


class ImageRecord(TypedDict):
    """What is known of an image.

    Attributes:
        width: width of the image, pixels.
        height: height of the image, pixels.
        original: name of the file that was added.
        marked: ids of the classes that a person marked in it.
        without: whether a person said that none of the classes is in it.
        found: what was predicted in it.
        version: changes with its marks and its result, and is never used twice.
    """

    width: int
    height: int
    original: str
    marked: list[int]
    without: NotRequired[bool]
    found: NotRequired[ResultRecord]
    version: int


class ProjectState(TypedDict):
    """The contents of project.json.

    Attributes:
        classes: names of the ids 1, 2 ...
        images: name of a file in images/ -> what is known of it.
        learned: number of classes, the first ones, that were learned; 0 before the first fit.
        thresholds: probability from which a pixel belongs to each learned class.
        as_learned: the same as the last fit chose it.
        fits: number of fits so far.
        ticks: the last version that an image got.
    """

    classes: list[str]
    images: dict[str, ImageRecord]
    learned: int
    thresholds: list[float]
    as_learned: list[float]
    fits: int
    ticks: int


def new_state() -> ProjectState:
    """Give the state of a project without images."""
    return {
        "classes": ["thing"],
        "images": {},
        "learned": 0,
        "thresholds": [],
        "as_learned": [],
        "fits": 0,
        "ticks": 0,
    }


def read_state(path: Path) -> ProjectState:
    """Read project.json; a key that it lacks has the value of a new project.

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
        return TypeAdapter(ProjectState).validate_python({**new_state(), **stored})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{path} is damaged ({where}: {first['msg']}): restore it, or remove it"
        ) from error


def write_state(path: Path, state: ProjectState) -> None:
    """Write project.json whole or not at all."""
    with replace_file(path) as fresh:
        fresh.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8", newline="\n")


def is_example(image: ImageRecord) -> bool:
    """Say whether a person marked something in an image, or that no class is in it."""
    return bool(image["marked"] or image.get("without"))


def work_size(width: int, height: int) -> tuple[int, int]:
    """Give the width and height at which the mask of an image is painted."""
    ratio = min(1.0, (PAINTED / (width * height)) ** 0.5)
    return max(1, round(width * ratio)), max(1, round(height * ratio))
