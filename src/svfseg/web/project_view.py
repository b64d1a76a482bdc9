"""A project as the page gets it in JSON."""

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from svfseg._version import __version__
from svfseg.web.project import PageProject
from svfseg.web.project.records import ImageRecord, work_size

COLORS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#00a5a5", "#f032e6", "#9a8400")


class ResultView(TypedDict):
    """What was predicted in an image.

    Attributes:
        class_ids: ids of the classes that were predicted.
        confidence: how sure the answer for each of them is, in [0, 1].
        present: for each of them, whether it is in the image.
        fit: number of the fit that predicted them.
        old: whether a later fit has not predicted the image yet.
    """

    class_ids: list[int]
    confidence: list[float]
    present: list[bool]
    fit: int
    old: bool


class ImageView(TypedDict):
    """An image as the page gets it.

    Attributes:
        name: its name.
        width: width of the image, pixels.
        height: height of the image, pixels.
        work: width and height at which its marks are painted.
        marked: ids of the classes that a person marked in it.
        without: whether a person said that none of the classes is in it.
        revision: the project's revision when its marks were last changed.
        version: the project's revision when its marks or its result were last changed.
        found: what was predicted in it.
    """

    name: str
    width: int
    height: int
    work: tuple[int, int]
    marked: list[int]
    without: bool
    revision: int
    version: int
    found: ResultView | None


class ProjectView(TypedDict):
    """A project as the page gets it.

    Attributes:
        version: version of svfseg.
        revision: grows with each change.
        name: name of its folder.
        images: its images, in the order in which they were added.
        classes: names of its classes.
        class_ids: ids of its classes, the values of their pixels.
        colors: colours of the ids 1, 2 ..., from the first again after the last.
        learned: number of classes that were learned.
        thresholds: for each class the probability from which a pixel belongs to it; None where it
            was not learned.
        as_learned: the same as the last fit chose it.
    """

    version: str
    revision: int
    name: str
    images: list[ImageView]
    classes: list[str]
    class_ids: list[int]
    colors: tuple[str, ...]
    learned: int
    thresholds: list[float | None]
    as_learned: list[float | None]


def view_project(project: PageProject) -> ProjectView:
    """Give everything that the page displays."""
    state = project.state
    learned = {} if state.fit is None else {each.class_id: each for each in state.fit.classes}
    known = [learned.get(each.id) for each in state.classes]
    return {
        "version": __version__,
        "revision": state.revision,
        "name": project.folder.resolve().name,
        "images": [
            _view_image(image, state.fit.number if state.fit else 0)
            for image in state.images.values()
        ],
        "classes": [each.name for each in state.classes],
        "class_ids": [each.id for each in state.classes],
        "colors": COLORS,
        "learned": len(learned),
        "thresholds": [None if each is None else each.threshold for each in known],
        "as_learned": [None if each is None else each.as_learned for each in known],
    }


def _view_image(image: ImageRecord, fit: int) -> ImageView:
    return {
        "name": image.name,
        "width": image.width,
        "height": image.height,
        "work": work_size(image.width, image.height),
        "marked": [] if image.without else list(image.marked),
        "without": image.without,
        "revision": image.marks_revision,
        "version": image.version,
        "found": _view_results(image, fit),
    }


def _view_results(image: ImageRecord, fit: int) -> ResultView | None:
    if not image.results:
        return None
    return {
        "class_ids": [each.class_id for each in image.results],
        "confidence": [each.confidence for each in image.results],
        "present": [each.present for each in image.results],
        "fit": image.results[0].fit,
        "old": image.results[0].fit != fit,
    }
