"""FastAPI dependencies of the routes of the page."""

from typing import Annotated

from fastapi import Depends, FastAPI, Path, Query, Request

from svfseg.web.project import PageProject
from svfseg.web.settings import PageSettings
from svfseg.web.worker import Worker


def set_page(app: FastAPI, project: PageProject, worker: Worker, settings: PageSettings) -> None:
    """Store what the routes of an application work on."""
    app.state.project, app.state.worker, app.state.settings = project, worker, settings


def _project(request: Request) -> PageProject:
    project: PageProject = request.app.state.project
    return project


def _worker(request: Request) -> Worker:
    worker: Worker = request.app.state.worker
    return worker


def _settings(request: Request) -> PageSettings:
    settings: PageSettings = request.app.state.settings
    return settings


ProjectDep = Annotated[PageProject, Depends(_project)]
WorkerDep = Annotated[Worker, Depends(_worker)]
SettingsDep = Annotated[PageSettings, Depends(_settings)]
ImageName = Annotated[str, Path(min_length=1, max_length=200)]
# The revision of the project that a change was made on: it is refused (409) where what it changes
# was changed since. Without it the change is made in any case.
MadeOn = Annotated[int | None, Query(alias="revision", ge=0, le=2**53)]
