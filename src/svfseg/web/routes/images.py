"""Routes of the page: images are added, displayed and removed."""

import functools
import io
from typing import Annotated

from fastapi import APIRouter, File, UploadFile
from fastapi.responses import FileResponse, Response
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from svfseg.errors import InputError
from svfseg.web.project import PageProject
from svfseg.web.results import draw_thumbnail
from svfseg.web.routes.page_dependencies import ImageName, MadeOn, ProjectDep, SettingsDep

SMALL, LARGE = 240, 1600

router = APIRouter(prefix="/api/images")


class Added(TypedDict):
    """Names of the images that were added, and one line for each file that was not."""

    added: list[str]
    problems: list[str]


class Revision(TypedDict):
    """The state of the project that a change led to."""

    revision: int


@router.post("")
def add(
    images: Annotated[list[UploadFile], File()], project: ProjectDep, settings: SettingsDep
) -> Added:
    """Add the images that can be read, and name the others."""
    names, problems = [], []
    for upload in images:
        data = upload.file.read()
        try:
            names.append(project.add_image(upload.filename or "image", data, settings.max_pixels))
        except InputError as error:
            problems.append(str(error))
    return {"added": names, "problems": problems}


@router.get("/{name}")
def image(name: ImageName, project: ProjectDep) -> Response:
    """Send the file of an image."""
    return FileResponse(project.path(project.record(name).file))


@router.get("/{name}/drawn")
def drawn(name: ImageName, project: ProjectDep, version: str = "", large: bool = False) -> Response:
    """Send a small picture with the mask laid over it; each version has its own address."""
    project.record(name)
    data = _thumbnail(project, name, version, LARGE if large else SMALL)
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": "max-age=3600"})


@router.delete("/{name}")
def remove(name: ImageName, project: ProjectDep, revision: MadeOn = None) -> Revision:
    """Remove an image from the project."""
    project.remove_image(name, revision)
    return {"revision": project.revision}


@functools.lru_cache(maxsize=2000)
def _thumbnail(project: PageProject, name: str, version: str, side: int) -> bytes:
    content = io.BytesIO()
    draw_thumbnail(project, name, side).save(content, "JPEG", quality=85)
    return content.getvalue()
