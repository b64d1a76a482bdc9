"""FastAPI dependencies and common answers of the routes of the service."""

from typing import Annotated

import fastapi
from fastapi import Depends, FastAPI, Request
from pydantic import StringConstraints

from svfseg.web.errors import Problem
from svfseg.web.metrics import Metrics
from svfseg.web.settings import ServiceSettings
from svfseg.web.tasks import NAME, Tasks
from svfseg.web.work import Work


def set_service(
    app: FastAPI, tasks: Tasks, work: Work, metrics: Metrics, settings: ServiceSettings
) -> None:
    """Store what the routes of an application work on."""
    app.state.tasks, app.state.work = tasks, work
    app.state.metrics, app.state.settings = metrics, settings


def _tasks(request: Request) -> Tasks:
    tasks: Tasks = request.app.state.tasks
    return tasks


def _work(request: Request) -> Work:
    work: Work = request.app.state.work
    return work


def _metrics(request: Request) -> Metrics:
    metrics: Metrics = request.app.state.metrics
    return metrics


def _settings(request: Request) -> ServiceSettings:
    settings: ServiceSettings = request.app.state.settings
    return settings


TasksDep = Annotated[Tasks, Depends(_tasks)]
WorkDep = Annotated[Work, Depends(_work)]
MetricsDep = Annotated[Metrics, Depends(_metrics)]
SettingsDep = Annotated[ServiceSettings, Depends(_settings)]

Name = Annotated[str, fastapi.Path(pattern=NAME, description="Name of the task.")]
ClassName = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]

Responses = dict[int | str, dict[str, object]]
UNKNOWN: Responses = {404: {"model": Problem, "description": "There is no such task."}}
DAMAGED: Responses = {409: {"model": Problem, "description": "The task's file cannot be used."}}


def binary_responses(*kinds: str) -> Responses:
    """Describe an answer whose body is a file of one of these media types."""
    return {200: {"content": {kind: {} for kind in kinds}}}
