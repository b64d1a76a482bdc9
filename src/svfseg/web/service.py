"""The service: tasks over HTTP, fitted, asked, sent and taken away."""

import asyncio
import base64
import copy
import io
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import fastapi
import prometheus_client
from fastapi import FastAPI, File, Form, Query, Request, Response, UploadFile
from fastapi.responses import HTMLResponse
from PIL import Image
from pydantic import BaseModel, Field, StringConstraints

from svfseg._version import __version__
from svfseg.annotations.writers import WRITERS, Named, join_coco, palette
from svfseg.data.images import Array
from svfseg.errors import InputError
from svfseg.segmenter import FewShotSegmenter, Segmentation
from svfseg.web.api_docs import render_reference
from svfseg.web.errors import PROBLEMS, DamagedTaskError, Problem, explain_problems
from svfseg.web.limits import Gate, Limits
from svfseg.web.metrics import Meter, Metrics
from svfseg.web.tasks import MAX_SIZE, NAME, TaskInfo, Tasks
from svfseg.web.uploads import decode_image, decode_mask

T = TypeVar("T")
# The images of one fit may have this many times the pixels that one image may.
FIT_IMAGES = 8
MEDIA = {
    "png": "image/png",
    "geojson": "application/geo+json",
    "coco": "application/json",
    "labelme": "application/json",
}
# The pages of this service run no script and load nothing.
POLICY = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}

Name = Annotated[str, fastapi.Path(pattern=NAME, description="Of the task.")]
ClassName = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]


@dataclass(frozen=True)
class ServiceSettings:
    """How a service runs.

    Attributes:
        limits: of requests.
        max_pixels: of one image; a fit may have eight times as many in all.
        model: base model of all tasks.
        device: auto, cpu, cuda, mps.
        workers: fits and predictions computed at once; from two on a fit has one of its own, and
            predictions do not wait for it.
        keep: tasks in memory.
    """

    limits: Limits = field(default_factory=Limits)
    max_pixels: int = 40_000_000
    model: str = "default"
    device: str = "auto"
    workers: int = 1
    keep: int = 4


class Health(BaseModel):
    """That the service answers."""

    status: Literal["ok"] = "ok"
    version: str = __version__


class TaskList(BaseModel):
    """What tasks there are."""

    tasks: list[TaskInfo]
    damaged: list[str] = Field(description="Names of those that cannot be read.")


class Prediction(BaseModel):
    """What was found in an image."""

    width: int
    height: int
    classes: list[str]
    mask: str = Field(description="A PNG in base64: 0 is background, i the i-th class.")
    confidence: dict[str, float] = Field(description="How sure the answer is; also an empty one.")
    share: dict[str, float] = Field(description="Of the image's pixels.")
    threshold: dict[str, float]


class Work:
    """Threads in which torch works, so that the event loop is free to answer.

    Args:
        workers: how many; from two on, one is for fits.
    """

    def __init__(self, workers: int) -> None:
        self.predicting = ThreadPoolExecutor(max(1, workers - 1), "predict")
        self.fitting = self.predicting if workers == 1 else ThreadPoolExecutor(1, "fit")
        self._jobs: set[Future[Any]] = set()

    def __len__(self) -> int:
        """How many jobs run or wait."""
        return len(self._jobs)

    async def run(self, threads: Executor, job: Callable[[], T]) -> T:
        """Await a job; one that is given up before its turn never runs."""
        future = threads.submit(job)
        self._jobs.add(future)
        future.add_done_callback(self._jobs.discard)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Start no other job; running ones go on."""
        for threads in (self.predicting, self.fitting):
            threads.shutdown(wait=False, cancel_futures=True)


def create_service(tasks: Path, settings: ServiceSettings | None = None) -> FastAPI:
    """The application, to be run by any ASGI server in one process.

    ``app.state.tasks`` and ``app.state.work`` are its `Tasks` and `Work`.

    Args:
        tasks: folder of the tasks' files; made if it is not there.
        settings: see there.

    Raises:
        OSError: the folder cannot be made.
    """
    settings = settings or ServiceSettings()
    limits = settings.limits
    store = Tasks(tasks, settings.model, settings.device, settings.keep, limits.max_bytes)
    work = Work(settings.workers)
    metrics = Metrics(store.__len__, work.__len__)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        work.close()

    app = FastAPI(
        title="svfseg",
        version=__version__,
        description="Few-shot segmentation: show a class in a few images, outline it in others.",
        docs_url=None, redoc_url=None, lifespan=life, responses=PROBLEMS,
    )  # fmt: skip
    app.state.tasks, app.state.work = store, work
    explain_problems(app)
    app.add_middleware(Gate, limits=limits)
    app.add_middleware(Meter, metrics=metrics)  # added last, so it is outermost

    @app.get("/health", summary="Whether the service answers")
    async def health() -> Health:
        return Health()

    @app.get("/metrics", summary="Figures for Prometheus", response_class=Response,
             responses={200: {"content": {"text/plain": {}}}})  # fmt: skip
    async def figures() -> Response:
        text = prometheus_client.generate_latest(metrics.registry)
        return Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)

    @app.get("/docs", include_in_schema=False)
    async def reference(request: Request) -> HTMLResponse:
        base = str(request.base_url).rstrip("/")
        page = render_reference(app.openapi(), base, limits.token is not None)
        return HTMLResponse(page, headers=POLICY)

    @app.get("/tasks", summary="All tasks")
    async def list_tasks() -> TaskList:
        return await asyncio.to_thread(_list, store)

    @app.get("/tasks/{name}", summary="A task", responses=_problems(404, 409))
    async def show_task(name: Name) -> TaskInfo:
        return await asyncio.to_thread(store.info, name)

    @app.delete("/tasks/{name}", summary="Remove a task", status_code=204,
                responses=_problems(404), openapi_extra={"x-curl": "-X DELETE"})  # fmt: skip
    async def delete_task(name: Name) -> None:
        await asyncio.to_thread(store.delete, name)

    @app.get("/tasks/{name}/file", summary="The file of a task", response_class=Response,
             responses={200: {"content": {"application/octet-stream": {}}}, **_problems(404)},
             openapi_extra={"x-curl": "-o crack.svf"})  # fmt: skip
    async def download(name: Name) -> Response:
        data = await asyncio.to_thread(store.path(name).read_bytes)
        disposition = {"Content-Disposition": f'attachment; filename="{name}.svf"'}
        return Response(data, media_type="application/octet-stream", headers=disposition)

    @app.put("/tasks/{name}/file", summary="Send a task's file", openapi_extra={
        "x-curl": "-T crack.svf", "requestBody": {"required": True, "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
    })  # fmt: skip
    async def upload(name: Name, request: Request) -> TaskInfo:
        """One that cannot be used is refused, and what was there stays."""
        data = await request.body()
        await work.run(work.predicting, lambda: store.put(name, data))
        return await asyncio.to_thread(store.info, name)

    @app.post("/tasks/{name}/fit", summary="Fit a task on marked images", openapi_extra={
        "x-curl": "-F images=@a.jpg -F masks=@a.png -F images=@b.jpg -F masks=@b.png "
        "-F negatives=@without.jpg -F classes=crack"})  # fmt: skip
    async def fit(
        name: Name,
        images: Annotated[list[UploadFile], File(description="Images with the classes.")],
        masks: Annotated[
            list[UploadFile], File(description="Their masks of ids, PNG, in the same order.")
        ],
        negatives: Annotated[
            list[UploadFile] | None, File(description="Images without any of the classes.")
        ] = None,
        classes: Annotated[
            list[ClassName] | None, Form(description="Names of the ids 1, 2 ... in the masks.")
        ] = None,
        adapt: Annotated[
            Literal["none", "svf", "norm", "lora", "full"], Form(description="What is tuned.")
        ] = "none",
        steps: Annotated[
            int | None, Form(ge=0, le=1000, description="Of that; by default chosen.")
        ] = None,
        lr: Annotated[float | None, Form(gt=0, le=100, description="Its rate.")] = None,
        size: Annotated[
            int | None, Form(ge=32, le=MAX_SIZE, description="Side that images are fitted to.")
        ] = None,
        tile: Annotated[bool, Form(description="Cut images into squares of that side.")] = False,
        threshold: Annotated[
            float | None, Form(gt=0, lt=1, description="Probability; by default chosen.")
        ] = None,
        seed: Annotated[int, Form(ge=0, lt=2**31)] = 0,
    ) -> TaskInfo:
        """A task of that name is replaced."""
        if len(images) != len(masks):
            raise InputError(
                f"found {len(images)} images and {len(masks)} masks: send one mask for each image, "
                "in the same order; images without the classes are negatives"
            )
        segmenter = FewShotSegmenter(
            settings.model, adapt=None if adapt == "none" else adapt, steps=steps, lr=lr, size=size,
            tile=tile, threshold=threshold, device=settings.device, seed=seed,
        )  # fmt: skip
        shown = [await each.read() for each in (*images, *(negatives or ()))]
        marked = [await each.read() for each in masks]

        def run() -> None:
            pictures, ids = _supports(shown, marked, settings.max_pixels)
            segmenter.fit(pictures, ids, classes or ("class",))
            store.save(name, segmenter)

        await work.run(work.fitting, run)
        return await asyncio.to_thread(store.info, name)

    @app.post("/tasks/{name}/predict", summary="Outline a task's classes in an image",
              response_model=Prediction,
              responses={200: {"content": {kind: {} for kind in dict.fromkeys(MEDIA.values())}},
                         **_problems(404, 409)},
              openapi_extra={"x-curl": "-F image=@photo.jpg"})  # fmt: skip
    async def predict(
        name: Name,
        image: Annotated[UploadFile, File(description="The image.")],
        format: Annotated[
            Literal["json", "png", "geojson", "coco", "labelme"],
            Query(description="json has the mask and what is known of it; png the mask alone."),
        ] = "json",
        threshold: Annotated[
            float | None, Query(gt=0, lt=1, description="Instead of the task's own.")
        ] = None,
    ) -> Any:
        store.path(name)  # one that is not there need not wait
        data = await image.read()

        def run() -> Any:
            segmenter = _with_threshold(store.load(name), threshold)
            found = segmenter.predict(decode_image(data, settings.max_pixels))
            if format == "json":
                return _prediction(found, segmenter)
            named = Named(_file_name(image.filename), found.mask, found.classes, found.confidence)
            return Response(_written(named, format), media_type=MEDIA[format])

        answer = await work.run(work.predicting, run)
        metrics.images.inc()
        return answer

    return app


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    texts = {404: "There is no such task.", 409: "The task's file cannot be used."}
    return {status: {"model": Problem, "description": texts[status]} for status in statuses}


def _list(store: Tasks) -> TaskList:
    found, damaged = [], []
    for name in store.names():
        if not re.match(NAME, name):  # no route reaches it
            continue
        try:
            found.append(store.info(name))
        except DamagedTaskError:
            damaged.append(name)
    return TaskList(tasks=found, damaged=damaged)


def _supports(
    images: Sequence[bytes], masks: Sequence[bytes], max_pixels: int
) -> tuple[list[Array], list[Array | None]]:
    """Pictures and masks of a fit; those behind the last mask have None."""
    left, pictures = FIT_IMAGES * max_pixels, []
    for i, data in enumerate(images, start=1):
        pictures.append(decode_image(data, min(left, max_pixels), f"image {i}"))
        left -= pictures[-1].size // 3
    ids: list[Array | None] = [
        decode_mask(data, max_pixels, f"mask {i}") for i, data in enumerate(masks, start=1)
    ]
    return pictures, ids + [None] * (len(images) - len(masks))


def _with_threshold(segmenter: FewShotSegmenter, threshold: float | None) -> FewShotSegmenter:
    if threshold is None:
        return segmenter
    own = copy.copy(segmenter)  # others ask the same one
    own.thresholds_ = {i: replace(rule, threshold=threshold) for i, rule in own.thresholds_.items()}
    return own


def _prediction(found: Segmentation, segmenter: FewShotSegmenter) -> Prediction:
    ids = list(enumerate(found.classes, start=1))
    return Prediction(
        width=found.mask.shape[1],
        height=found.mask.shape[0],
        classes=list(found.classes),
        mask=base64.b64encode(_png(found.mask, len(ids))).decode(),
        confidence=found.confidence,
        share={name: round(float((found.mask == i).mean()), 5) for i, name in ids},
        threshold={name: segmenter.thresholds_[i].threshold for i, name in ids},
    )


def _written(named: Named, kind: str) -> bytes:
    """A mask as the file of another program."""
    if kind == "png":
        return _png(named.mask, len(named.classes))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        WRITERS[kind](folder, named)
        path = join_coco(folder) if kind == "coco" else next(folder.iterdir())
        return path.read_bytes()


def _png(mask: Array, classes: int) -> bytes:
    """Its values are the ids, its colours for the eye."""
    image, file = Image.fromarray(mask), io.BytesIO()
    image.putpalette([channel for color in palette(classes) for channel in color])
    image.save(file, "PNG")
    return file.getvalue()


def _file_name(given: str | None) -> Path:
    """The name of a file that was sent, safe to write beside others."""
    name = re.split(r"[/\\]", given or "")[-1]
    return Path(re.sub(r"[^\w .-]", "_", name)[-100:].strip(". ") or "image")
