"""FastAPI dependencies and common answers of the routes of the service."""

from typing import Annotated, get_args, get_origin

import fastapi
from fastapi import Depends, FastAPI, Request
from pydantic import AfterValidator, StringConstraints

from svfseg.errors import InputError
from svfseg.web.errors import Problem
from svfseg.web.metrics import Metrics
from svfseg.web.settings import ServiceSettings
from svfseg.web.tasks import NAME, Tasks
from svfseg.web.validation import check_plain
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


def _one_name(name: str) -> str:
    if "," in name:
        raise ValueError("it holds a comma: repeat classes for each of several")
    return check_plain(name)


ClassName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=100, strip_whitespace=True),
    AfterValidator(_one_name),
]


async def _as_described(request: Request) -> None:
    """Refuse what would be dropped in silence: unknown parts, and single ones that come twice.

    Raises:
        InputError: there is one.
    """
    described = request.scope["route"].dependant
    form = await request.form()
    for sent, expected in (
        (request.query_params, described.query_params),
        (form, described.body_params),
    ):
        many = {each.alias: _takes_many(each.field_info.annotation) for each in expected}
        for name in sent:
            if name not in many:
                raise InputError(f"{name!r:.60} is not used here: expected {', '.join(many)}")
            count = len(sent.getlist(name))
            if count > 1 and not many[name]:
                raise InputError(f"{name} is sent {count} times: expected it once")


def _takes_many(kind: object) -> bool:
    return get_origin(kind) is list or any(get_origin(each) is list for each in get_args(kind))


# A route whose form and query hold nothing but what its description names.
AsDescribed = Depends(_as_described)

Responses = dict[int | str, dict[str, object]]
UNKNOWN: Responses = {404: {"model": Problem, "description": "There is no such task."}}
DAMAGED: Responses = {409: {"model": Problem, "description": "The task's file cannot be used."}}


def binary_responses(*kinds: str) -> Responses:
    """Describe an answer whose body is a file of one of these media types."""
    return {200: {"content": {kind: {} for kind in kinds}}}
