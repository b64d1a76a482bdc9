"""Routes of the page: what a person marks in an image, and what was predicted in it."""

import io
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Body
from fastapi.responses import Response
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from svfseg.annotations.marks import draw_marks
from svfseg.data.images import Array
from svfseg.web.project_file import work_size
from svfseg.web.routes.page_dependencies import ImageName, ProjectDep, SettingsDep
from svfseg.web.uploads import decode_mask

Point = tuple[FiniteFloat, FiniteFloat]

router = APIRouter(prefix="/api/images/{name}")


class Version(TypedDict):
    """The version of an image that a change led to."""

    version: int


class _Mark(BaseModel):
    class_id: int = Field(default=1, alias="class")


class Click(_Mark):
    """A point of a class; class 0 is the background."""

    points: Point


class Line(_Mark):
    """A line of points of a class."""

    points: list[Point]


class Box(_Mark):
    """A box around a thing: left, top, right, bottom."""

    points: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]


class Marks(BaseModel):
    """Marks in pixels of the image as it is painted."""

    model_config = ConfigDict(extra="forbid")

    clicks: list[Click] = []
    scribbles: list[Line] = []
    boxes: list[Box] = []
    polygons: list[Line] = []


@router.get("/mask")
def mask(name: ImageName, project: ProjectDep) -> Response:
    """Send what is marked, as a grey PNG of ids, of the size at which it is painted."""
    return _png(project.mask(name))


@router.put("/mask")
def mark(
    name: ImageName,
    data: Annotated[bytes, Body(media_type="image/png")],
    project: ProjectDep,
    settings: SettingsDep,
) -> Version:
    """Store what is marked, a PNG of ids."""
    return {"version": project.set_mask(name, decode_mask(data, settings.max_pixels))}


@router.delete("/mask")
def unmark(name: ImageName, project: ProjectDep) -> Version:
    """Remove all marks of an image."""
    return {"version": project.forget_marks(name)}


@router.put("/without")
def without(name: ImageName, value: Annotated[bool, Body()], project: ProjectDep) -> Version:
    """Say that an image shows none of the classes, or take that back."""
    return {"version": project.set_without(name, value)}


@router.post("/grow")
def grow(name: ImageName, marks: Marks, project: ProjectDep) -> Response:
    """Send the region that clicks and scribbles stand for, as a grey PNG of ids."""
    with Image.open(project.path(name)) as image:
        size = work_size(*image.size)
        pixels = np.asarray(image.convert("RGB").resize(size))
    ids = draw_marks(marks.model_dump(by_alias=True), pixels, len(project.state["classes"]))
    return _png(np.where(ids == 255, 0, ids).astype(np.uint8))


@router.get("/found/{class_id}")
def found(name: ImageName, class_id: int, project: ProjectDep) -> Response:
    """Send the probabilities of a class in 1/255, of the size at which masks are painted."""
    with Image.open(project.probability_path(name, class_id)) as image:
        return _png(np.asarray(image))


def _png(values: Array) -> Response:
    """Grey, resized to the size at which masks are painted."""
    image = Image.fromarray(values)
    size = work_size(*image.size)
    if image.size != size:
        image = image.resize(size, Image.Resampling.NEAREST)
    content = io.BytesIO()
    image.save(content, "PNG", compress_level=1)
    return Response(content.getvalue(), media_type="image/png")
