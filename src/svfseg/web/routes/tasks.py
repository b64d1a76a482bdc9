"""Routes of the service: tasks are listed, described, removed, downloaded and uploaded."""

import asyncio
import re
import tempfile

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from svfseg.web.errors import DamagedTaskError, UnknownNameError
from svfseg.web.routes.service_dependencies import (
    DAMAGED,
    UNKNOWN,
    Name,
    TasksDep,
    WorkDep,
    binary_responses,
)
from svfseg.web.tasks import NAME, TaskInfo, Tasks

BINARY = "application/octet-stream"
# Bytes of an upload that are kept in memory while it comes; the rest is in a file.
MEMORY = 1_000_000

router = APIRouter(prefix="/tasks")


class TaskList(BaseModel):
    """All tasks."""

    tasks: list[TaskInfo]
    damaged: list[str] = Field(description="Names of the tasks whose files cannot be read.")


@router.get("", summary="All tasks")
async def list_tasks(tasks: TasksDep) -> TaskList:
    """They are the files NAME.svf in the folder of the service."""
    return await asyncio.to_thread(_list, tasks)


@router.get("/{name}", summary="A task", responses={**UNKNOWN, **DAMAGED})
async def show_task(name: Name, tasks: TasksDep) -> TaskInfo:
    """Its classes, supports, thresholds and settings."""
    return await asyncio.to_thread(tasks.info, name)


@router.delete(
    "/{name}",
    summary="Remove a task",
    status_code=204,
    responses={**UNKNOWN, **DAMAGED},
    openapi_extra={"x-curl": "-X DELETE"},
)
async def delete_task(name: Name, tasks: TasksDep) -> None:
    """Its file is deleted."""
    await asyncio.to_thread(tasks.delete, name)


@router.get(
    "/{name}/file",
    summary="The file of a task",
    response_class=Response,
    responses={**binary_responses(BINARY), **UNKNOWN, **DAMAGED},
    openapi_extra={"x-curl": "-o crack.svf"},
)
async def download(name: Name, tasks: TasksDep) -> Response:
    """It is what svfseg predict and Python read, and what the next route takes."""
    data = await asyncio.to_thread(tasks.read, name)
    disposition = {"Content-Disposition": f'attachment; filename="{name}.svf"'}
    return Response(data, media_type=BINARY, headers=disposition)


@router.put(
    "/{name}/file",
    summary="Send a task's file",
    responses=DAMAGED,
    openapi_extra={
        "x-curl": "-T crack.svf",
        "requestBody": {
            "required": True,
            "content": {BINARY: {"schema": {"type": "string", "format": "binary"}}},
        },
    },
)
async def upload(name: Name, request: Request, tasks: TasksDep, work: WorkDep) -> TaskInfo:
    """A file that cannot be used is refused, and the old one stays."""
    with tempfile.SpooledTemporaryFile(MEMORY) as body:  # many uploads may be under way at once
        async for part in request.stream():
            body.write(part)
        body.seek(0)
        data = body.read()
    await work.run(work.predicting, lambda: tasks.put(name, data))
    return await asyncio.to_thread(tasks.info, name)


def _list(tasks: Tasks) -> TaskList:
    readable, damaged = [], []
    for name in tasks.names():
        if not re.match(NAME, name):  # no route reaches it
            continue
        try:
            readable.append(tasks.info(name))
        except DamagedTaskError:
            damaged.append(name)
        except UnknownNameError:  # removed in between
            continue
    return TaskList(tasks=readable, damaged=damaged)
