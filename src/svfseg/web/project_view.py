"""A project as the page gets it in JSON."""

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from svfseg._version import __version__
from svfseg.web.project import PageProject
from svfseg.web.project_file import ImageRecord, ResultRecord, work_size

COLORS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#00a5a5", "#f032e6", "#9a8400")


class ResultView(ResultRecord):
    """A result as the page gets it; ``old`` says that a later fit has not predicted it yet."""

    old: bool


class ImageView(TypedDict):
    """An image as the page gets it; ``work`` is the width and height of its painted masks."""

    name: str
    width: int
    height: int
    work: tuple[int, int]
    marked: list[int]
    without: bool
    version: int
    found: ResultView | None


class ProjectView(TypedDict):
    """A project as the page gets it."""

    version: str
    revision: int
    name: str
    images: list[ImageView]
    classes: list[str]
    colors: tuple[str, ...]
    learned: int
    thresholds: list[float]
    as_learned: list[float]


def view_project(project: PageProject) -> ProjectView:
    """Give everything that the page displays."""
    with project.lock:
        state = project.state
        return {
            "version": __version__,
            "revision": project.revision,
            "name": project.folder.resolve().name,
            "images": [
                _view_image(name, image, state["fits"]) for name, image in state["images"].items()
            ],
            "classes": state["classes"],
            "colors": COLORS,
            "learned": state["learned"],
            "thresholds": state["thresholds"],
            "as_learned": state["as_learned"],
        }


def _view_image(name: str, image: ImageRecord, fits: int) -> ImageView:
    result = image.get("found")
    return {
        "name": name,
        "width": image["width"],
        "height": image["height"],
        "work": work_size(image["width"], image["height"]),
        "marked": [] if image.get("without") else image["marked"],
        "without": image.get("without", False),
        "version": image["version"],
        "found": None if result is None else {**result, "old": result["fit"] != fits},
    }
