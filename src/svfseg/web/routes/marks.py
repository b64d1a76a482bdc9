"""Routes of the page: what a person marks in an image, and what was predicted in it."""

import io
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Body
from fastapi.responses import Response
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from svfseg.annotations.inputs import as_image
from svfseg.annotations.marks import draw_marks
from svfseg.data.images import Array
from svfseg.data.masks import read_mask
from svfseg.errors import InputError
from svfseg.web.errors import UnknownNameError
from svfseg.web.project.records import work_size
from svfseg.web.routes.page_dependencies import ImageName, MadeOn, ProjectDep, SettingsDep
from svfseg.web.uploads import FAR, decode_mask

Point = tuple[FiniteFloat, FiniteFloat]
# A region grows from so many marks, and so many points of each.
MOST_MARKS, MOST_POINTS = 1000, 10_000

router = APIRouter(prefix="/api/images/{name}")


class Version(TypedDict):
    """The revision that a change led to: the image's version, and its marks' revision."""

    version: int


class _Mark(BaseModel):
    class_id: int = Field(default=1, alias="class")


class Click(_Mark):
    """A point of a class; class 0 is the background."""

    points: Point


class Line(_Mark):
    """A line of points of a class."""

    points: Annotated[list[Point], Field(max_length=MOST_POINTS)]


class Box(_Mark):
    """A box around a thing: left, top, right, bottom."""

    points: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]


class Marks(BaseModel):
    """Marks in pixels of the image as it is painted."""

    model_config = ConfigDict(extra="forbid")

    clicks: Annotated[list[Click], Field(max_length=MOST_MARKS)] = []
    scribbles: Annotated[list[Line], Field(max_length=MOST_MARKS)] = []
    boxes: Annotated[list[Box], Field(max_length=MOST_MARKS)] = []
    polygons: Annotated[list[Line], Field(max_length=MOST_MARKS)] = []


@router.get("/mask")
def mask(name: ImageName, project: ProjectDep) -> Response:
    """Send what is marked, as a grey PNG of ids, of the size at which it is painted."""
    with project.reading():
        return _png(project.mask(project.record(name)))


@router.put("/mask")
def mark(
    name: ImageName,
    data: Annotated[bytes, Body(media_type="image/png")],
    project: ProjectDep,
    settings: SettingsDep,
    revision: MadeOn = None,
) -> Version:
    """Store what is marked, a PNG of ids."""
    mask = decode_mask(data, settings.max_pixels)
    return {"version": project.set_mask(name, mask, revision)}


@router.delete("/mask")
def unmark(name: ImageName, project: ProjectDep, revision: MadeOn = None) -> Version:
    """Remove all marks of an image."""
    return {"version": project.forget_marks(name, revision)}


@router.put("/without")
def without(
    name: ImageName,
    value: Annotated[bool, Body()],
    project: ProjectDep,
    revision: MadeOn = None,
) -> Version:
    """Say that an image shows none of the classes, or take that back."""
    return {"version": project.set_without(name, value, revision)}


@router.post("/grow")
def grow(name: ImageName, marks: Marks, project: ProjectDep) -> Response:
    """Send the region that clicks and scribbles stand for, as a grey PNG of ids."""
    with project.reading() as state:
        picture = as_image(project.path(project.record(name).file))
        ids = [0, *(each.id for each in state.classes)]
    size = work_size(picture.shape[1], picture.shape[0])
    pixels = np.asarray(Image.fromarray(picture).resize(size))
    drawn = draw_marks(_numbered(marks, ids, size), pixels, len(ids) - 1)
    return _png(np.array(ids, np.uint8)[np.where(drawn == 255, 0, drawn)])


def _numbered(marks: Marks, ids: list[int], size: tuple[int, int]) -> dict[str, Any]:
    """Marks with places in ``ids`` for the ids of classes.

    Raises:
        InputError: an id of no class, or a mark that lies far from the image.
    """
    values = marks.model_dump(by_alias=True)
    for kind, each in ((kind, each) for kind, many in values.items() for each in many):
        if each["class"] not in ids:
            raise InputError(f"a mark is of class {each['class']}: expected one of {ids}")
        each["class"] = ids.index(each["class"])
        numbers = np.array(each["points"], float).reshape(-1)
        if np.abs(numbers).max(initial=0) > FAR * max(size):
            raise InputError(
                f"one of the {kind} lies far outside of the image, which is {size[0]}x{size[1]}: "
                "expected pixels of it"
            )
    return values


@router.get("/found/{class_id}")
def found(name: ImageName, class_id: int, project: ProjectDep) -> Response:
    """Send the probabilities of a class in 1/255, of the size at which masks are painted."""
    with project.reading():
        results = {each.class_id: each for each in project.record(name).results}
        if class_id not in results:
            raise UnknownNameError(
                f"there is no result of class {class_id} in {name}: reload the page"
            )
        return _png(read_mask(project.path(results[class_id].file)))


def _png(values: Array) -> Response:
    """Grey, resized to the size at which masks are painted."""
    image = Image.fromarray(values)
    size = work_size(*image.size)
    if image.size != size:
        image = image.resize(size, Image.Resampling.NEAREST)
    content = io.BytesIO()
    image.save(content, "PNG", compress_level=1)
    return Response(content.getvalue(), media_type="image/png")
