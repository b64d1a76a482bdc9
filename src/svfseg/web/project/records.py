"""A project at one revision, as plain data that nobody can change."""

from dataclasses import dataclass

# A mask is painted with at most this many pixels, and resized to the image's own size.
PAINTED = 4_000_000


@dataclass(frozen=True)
class ProjectClass:
    """A class; its id is the value of its pixels in masks, and no other class ever gets it."""

    id: int
    name: str


@dataclass(frozen=True)
class ClassResult:
    """What was predicted of a class in an image.

    Attributes:
        class_id: id of the class.
        confidence: how sure the answer is, in [0, 1].
        present: whether the class is in the image.
        fit: number of the fit that predicted it.
        file: path in the project of its probabilities, 255 being certain.
    """

    class_id: int
    confidence: float
    present: bool
    fit: int
    file: str


@dataclass(frozen=True)
class ImageRecord:
    """What is known of an image.

    Attributes:
        name: its name in the project, which no other image has.
        file: its path in the project.
        original: name of the file that was added.
        width: width of the image, pixels.
        height: height of the image, pixels.
        mask: path in the project of what a person marked in it; None where nothing was.
        marked: ids of the classes that a person marked in it.
        without: whether a person said that none of the classes is in it.
        marks_revision: the project's revision when its marks were last changed.
        version: the project's revision when its marks or its result were last changed.
        results: what was predicted in it, of each class that was learned.
    """

    name: str
    file: str
    original: str
    width: int
    height: int
    mask: str | None
    marked: tuple[int, ...]
    without: bool
    marks_revision: int
    version: int
    results: tuple[ClassResult, ...]

    @property
    def is_example(self) -> bool:
        """Whether a person marked something in it, or said that no class is in it."""
        return bool(self.marked or self.without)


@dataclass(frozen=True)
class LearnedClass:
    """A class that was learned, and from which probability on a pixel belongs to it."""

    class_id: int
    threshold: float
    as_learned: float


@dataclass(frozen=True)
class FitRecord:
    """What was learned last.

    Attributes:
        number: no other fit has it.
        file: path in the project of the task file.
        classes: the classes that were learned, in the order of the task's ids 1, 2 ...
    """

    number: int
    file: str
    classes: tuple[LearnedClass, ...]


@dataclass(frozen=True)
class ProjectState:
    """A project at one revision.

    Attributes:
        revision: grows with each change.
        classes: the classes, in the order in which they were made.
        classes_revision: the revision when the classes were last changed.
        marks_revision: the revision when any marks, images or classes were last changed.
        images: name -> image, in the order in which they were added.
        fit: what was learned last; None before that, and after a learned class was removed.
    """

    revision: int
    classes: tuple[ProjectClass, ...]
    classes_revision: int
    marks_revision: int
    images: dict[str, ImageRecord]
    fit: FitRecord | None


def work_size(width: int, height: int) -> tuple[int, int]:
    """Give the width and height at which the mask of an image is painted."""
    ratio = min(1.0, (PAINTED / (width * height)) ** 0.5)
    return max(1, round(width * ratio)), max(1, round(height * ratio))
