"""The page: what a browser asks for, and what it sends."""

import functools
import io
import tempfile
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

import numpy as np
from fastapi import Body, FastAPI, File, HTTPException, Query, Request, UploadFile
from fastapi import Path as Part
from fastapi.responses import FileResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from PIL import Image
from pydantic import BaseModel

from svfseg.annotations.marks import draw_marks
from svfseg.annotations.writers import WRITERS
from svfseg.data.images import Array
from svfseg.segmenter.adaptation import PRESETS
from svfseg.web.errors import explain_problems, problem
from svfseg.web.limits import COOKIE, Gate, Limits
from svfseg.web.project import TASK, Project, work_size
from svfseg.web.results import draw_answer, export_masks
from svfseg.web.uploads import decode_mask
from svfseg.web.worker import BusyError, Worker

STATIC = Path(__file__).parent / "static"
# Only what this server sends, and pictures that the page makes itself.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)
SMALL, LARGE = 240, 1600
Name = Annotated[str, Part(min_length=1, max_length=200)]


@dataclass(frozen=True)
class PageSettings:
    """How the page runs.

    Attributes:
        limits: of requests.
        max_pixels: of an image.
        model: see `svfseg.FewShotSegmenter`.
        device: auto, cpu, cuda, mps.
    """

    limits: Limits = field(default_factory=Limits)
    max_pixels: int = 60_000_000
    model: str = "default"
    device: str = "auto"


class Learn(BaseModel):
    """How to learn."""

    adapt: Literal["none", "svf", "norm", "lora", "full"] = "none"
    tile: bool = False
    empty: bool = True
    size: int | None = None


def create_page(project: Project, settings: PageSettings | None = None) -> FastAPI:
    """The application, to be run by any ASGI server in one process.

    Args:
        project: what it shows and changes.
        settings: see there.
    """
    settings = PageSettings() if settings is None else settings
    worker = Worker(project, settings.model, settings.device)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        worker.close()
        project.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    app.state.worker = worker
    app.add_middleware(Gate, limits=settings.limits)
    explain_problems(app)

    @app.exception_handler(KeyError)
    async def missing(request: Request, error: KeyError) -> Response:
        return problem(404, f"{error.args[0]} is not in this project: reload the page")

    @app.exception_handler(BusyError)
    async def busy(request: Request, error: BusyError) -> Response:
        return problem(409, str(error))

    @app.middleware("http")
    async def guard(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers.setdefault("Cache-Control", "no-cache")
        return response

    @app.get("/")
    def index() -> Response:
        return FileResponse(STATIC / "index.html")

    @app.get("/open/{token}")
    def enter(token: str) -> Response:
        """The link that is printed at the start: keeps the token in the browser."""
        response = RedirectResponse("/", 303)
        response.set_cookie(COOKIE, token, httponly=True, samesite="strict")
        return response

    app.mount("/static", StaticFiles(directory=STATIC))

    @app.get("/api/state")
    def state(revision: int = -1) -> dict[str, Any]:
        """The project, or only the job where nothing changed since a revision."""
        job = dict(worker.job)
        if revision == project.revision:
            return {"revision": revision, "job": job}
        return {**project.shown(), "job": job, "formats": list(WRITERS), "adapt": list(PRESETS)}

    # images

    @app.post("/api/images")
    def add(images: Annotated[list[UploadFile], File()]) -> dict[str, Any]:
        """Keep what can be read; what cannot is named."""
        names, problems = [], []
        for upload in images:
            try:
                data = upload.file.read()
                name = upload.filename or "image"
                names.append(project.add_image(name, data, settings.max_pixels))
            except ValueError as error:
                problems.append(str(error))
        return {"added": names, "problems": problems}

    @app.get("/api/images/{name}")
    def image(name: Name) -> Response:
        return FileResponse(project.path(name))

    @app.get("/api/images/{name}/drawn")
    def drawn(name: Name, version: str = "", large: bool = False) -> Response:
        """A small picture with what counts laid over it; another version is another address."""
        project.path(name)
        data = _drawn(project, name, version, LARGE if large else SMALL)
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "max-age=3600"})

    @app.delete("/api/images/{name}")
    def remove(name: Name) -> dict[str, int]:
        project.remove_image(name)
        return {"revision": project.revision}

    # marks

    @app.get("/api/images/{name}/mask")
    def mask(name: Name) -> Response:
        """What is marked, as a grey PNG of ids, as large as it is painted."""
        return _png(project.mask(name))

    @app.put("/api/images/{name}/mask")
    def mark(name: Name, data: Annotated[bytes, Body(media_type="image/png")]) -> dict[str, int]:
        return {"version": project.set_mask(name, decode_mask(data, settings.max_pixels))}

    @app.delete("/api/images/{name}/mask")
    def unmark(name: Name) -> dict[str, int]:
        return {"version": project.forget_marks(name)}

    @app.put("/api/images/{name}/without")
    def without(name: Name, value: Annotated[bool, Body()]) -> dict[str, int]:
        return {"version": project.set_without(name, value)}

    @app.post("/api/images/{name}/grow")
    def grow(name: Name, marks: dict[str, list[Any]]) -> Response:
        """The region that clicks and scribbles mean, as a grey PNG of ids."""
        with Image.open(project.path(name)) as image:
            size = work_size(*image.size)
            pixels = np.asarray(image.convert("RGB").resize(size))
        found = draw_marks(marks, pixels, len(project.state["classes"]))
        return _png(np.where(found == 255, 0, found).astype(np.uint8))

    @app.get("/api/images/{name}/found/{class_id}")
    def found(name: Name, class_id: int) -> Response:
        """The probabilities of a class in 1/255, as large as masks are painted."""
        with Image.open(project.found_path(name, class_id)) as image:
            return _png(np.asarray(image))

    # classes, learning, answers

    @app.put("/api/classes")
    def classes(names: list[str]) -> dict[str, int]:
        project.set_classes(names)
        return {"revision": project.revision}

    @app.delete("/api/classes/{class_id}")
    def remove_class(class_id: int) -> dict[str, int]:
        project.remove_class(class_id)
        return {"revision": project.revision}

    @app.put("/api/thresholds/{class_id}")
    def threshold(class_id: int, value: Annotated[float, Body()]) -> dict[str, int]:
        project.set_threshold(class_id, value)
        return {"revision": project.revision}

    @app.post("/api/learn")
    def learn(how: Learn) -> dict[str, bool]:
        adapt = None if how.adapt == "none" else how.adapt
        worker.learn(adapt=adapt, tile=how.tile, empty=how.empty, size=how.size)
        return {"running": True}

    @app.post("/api/outline")
    def outline() -> dict[str, bool]:
        worker.outline()
        return {"running": True}

    @app.post("/api/stop")
    def stop() -> dict[str, bool]:
        worker.stop()
        return {"running": worker.job["running"]}

    @app.get("/api/export")
    def export(form: Annotated[str, Query(alias="format")] = "png") -> Response:
        """All masks, zipped."""
        with tempfile.TemporaryDirectory() as folder:
            export_masks(project, Path(folder), form)
            content = io.BytesIO()
            with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
                for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
                    file.write(path, path.relative_to(folder))
        title = f"{project.folder.resolve().name}-{form}.zip"
        return Response(content.getvalue(), media_type="application/zip", headers=_saved_as(title))

    @app.get("/api/task")
    def task() -> Response:
        """What was learned, as a file for the command line and Python."""
        path = project.folder / TASK
        if not path.is_file():
            raise HTTPException(404, "nothing was learned yet: mark an example, and learn from it")
        return FileResponse(path, headers=_saved_as(f"{project.folder.resolve().name}.svf"))

    return app


@functools.lru_cache(maxsize=2000)
def _drawn(project: Project, name: str, version: str, side: int) -> bytes:
    content = io.BytesIO()
    draw_answer(project, name, side).save(content, "JPEG", quality=85)
    return content.getvalue()


def _png(values: Array) -> Response:
    """Grey, scaled to the size at which masks are painted."""
    image = Image.fromarray(values)
    size = work_size(*image.size)
    if image.size != size:
        image = image.resize(size, Image.Resampling.NEAREST)
    content = io.BytesIO()
    image.save(content, "PNG", compress_level=1)
    return Response(content.getvalue(), media_type="image/png")


def _saved_as(name: str) -> dict[str, str]:
    return {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}"}
