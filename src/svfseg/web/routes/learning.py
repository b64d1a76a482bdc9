"""Routes of the page: classes and thresholds, learning, and what is taken away."""

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Body, HTTPException, Query
from fastapi.responses import Response
from pydantic import BaseModel, Field
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from svfseg.segmenter.task_file import rename_classes
from svfseg.web.results import zip_masks
from svfseg.web.routes.images import Revision
from svfseg.web.routes.page_dependencies import MadeOn, ProjectDep, WorkerDep
from svfseg.web.tasks import MAX_SIZE

router = APIRouter(prefix="/api")


class Running(TypedDict):
    """Whether a job runs now."""

    running: bool


class Learn(BaseModel):
    """How to learn; see `svfseg.FewShotSegmenter`."""

    adapt: Literal["none", "svf", "norm", "lora", "full"] = "none"
    tile: bool = False
    empty: bool = True
    size: Annotated[int | None, Field(ge=32, le=MAX_SIZE)] = None
    seconds: Annotated[float, Field(ge=0, le=3600)] = 60.0


@router.put("/classes")
def classes(names: list[str], project: ProjectDep, revision: MadeOn = None) -> Revision:
    """Name the classes, and add some at the end."""
    project.set_classes(names, revision)
    return {"revision": project.revision}


@router.delete("/classes/{class_id}")
def remove_class(class_id: int, project: ProjectDep, revision: MadeOn = None) -> Revision:
    """Remove a class from all marks; its id is never used again."""
    project.remove_class(class_id, revision)
    return {"revision": project.revision}


@router.put("/thresholds/{class_id}")
def threshold(class_id: int, value: Annotated[float, Body()], project: ProjectDep) -> Revision:
    """Change the threshold of a class."""
    project.set_threshold(class_id, value)
    return {"revision": project.revision}


@router.post("/learn")
def learn(how: Learn, worker: WorkerDep, revision: MadeOn = None) -> Running:
    """Learn from the examples, and predict all other images."""
    adapt = None if how.adapt == "none" else how.adapt
    worker.learn(adapt, how.tile, how.empty, how.size, how.seconds, revision)
    return {"running": True}


@router.post("/outline")
def outline(worker: WorkerDep) -> Running:
    """Predict the images that have no result of what was learned last."""
    worker.outline()
    return {"running": True}


@router.post("/stop")
def stop(worker: WorkerDep) -> Running:
    """Stop the job after its present step or image."""
    worker.stop()
    return {"running": worker.running}


@router.get("/export")
def export(project: ProjectDep, kind: Annotated[str, Query(alias="format")] = "png") -> Response:
    """Send all masks in a zip file."""
    name = f"{project.folder.resolve().name}-{kind}.zip"
    return Response(
        zip_masks(project, kind), media_type="application/zip", headers=_attachment(name)
    )


@router.get("/task")
def task(project: ProjectDep) -> Response:
    """Send what was learned, a file for the command line and for Python."""
    with project.reading() as state, tempfile.TemporaryDirectory() as folder:
        if state.fit is None:
            raise HTTPException(404, "nothing was learned yet: mark an example, and learn from it")
        path = Path(folder) / "task.svf"
        shutil.copy(project.path(state.fit.file), path)
        names = {each.id: each.name for each in state.classes}
        rename_classes(path, [names[each.class_id] for each in state.fit.classes])
        data = path.read_bytes()
    name = f"{project.folder.resolve().name}.svf"
    return Response(data, media_type="application/octet-stream", headers=_attachment(name))


def _attachment(name: str) -> dict[str, str]:
    return {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}"}
