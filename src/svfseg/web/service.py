"""The application of the service: tasks over HTTP, for programs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from svfseg._version import __version__
from svfseg.web.cross_origin import CrossOrigin
from svfseg.web.errors import PROBLEMS, explain_problems
from svfseg.web.limits import Gate
from svfseg.web.metrics import Meter, Metrics
from svfseg.web.routes import fit, monitoring, predict
from svfseg.web.routes import tasks as task_files
from svfseg.web.routes.service_dependencies import set_service
from svfseg.web.settings import ServiceSettings
from svfseg.web.tasks import Tasks
from svfseg.web.work import Work


def create_service(folder: Path, settings: ServiceSettings | None = None) -> FastAPI:
    """Make the application, to be run by any ASGI server in one process.

    ``app.state.tasks`` and ``app.state.work`` are its `Tasks` and its `Work`.

    Args:
        folder: where the files of the tasks are; made if it is not there.
        settings: how it runs.

    Raises:
        MissingFileError: there is no such model.
        OSError: the folder cannot be made.
    """
    settings = settings or ServiceSettings()
    limits = settings.limits
    tasks = Tasks(folder, settings.model, settings.device, settings.keep, limits.max_bytes)
    work = Work(settings.workers)
    metrics = Metrics(tasks.__len__, work.__len__)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        work.close()

    app = FastAPI(
        title="svfseg",
        version=__version__,
        description="Few-shot segmentation: mark a class in a few images, outline it in others.",
        docs_url=None, redoc_url=None, lifespan=lifespan, responses=PROBLEMS,
    )  # fmt: skip
    set_service(app, tasks, work, metrics, settings)
    explain_problems(app)
    app.add_middleware(Gate, limits=limits)
    if limits.origins:
        app.add_middleware(CrossOrigin, origins=limits.origins)
    app.add_middleware(Meter, metrics=metrics)  # added last, so it is outermost
    for module in (monitoring, task_files, fit, predict):
        app.include_router(module.router)
    return app
