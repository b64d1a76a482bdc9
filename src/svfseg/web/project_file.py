"""project.json: everything that a page's project knows, as plain typed data."""

from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from svfseg.web.validation import read_state

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


def read_project(path: Path) -> ProjectState:
    """Read project.json; a key that it lacks has the value of a new project.

    Raises:
        InputError: it is damaged.
    """
    return read_state(path, ProjectState, new_state())


def is_example(image: ImageRecord) -> bool:
    """Say whether a person marked something in an image, or that no class is in it."""
    return bool(image["marked"] or image.get("without"))


def work_size(width: int, height: int) -> tuple[int, int]:
    """Give the width and height at which the mask of an image is painted."""
    ratio = min(1.0, (PAINTED / (width * height)) ** 0.5)
    return max(1, round(width * ratio)), max(1, round(height * ratio))
