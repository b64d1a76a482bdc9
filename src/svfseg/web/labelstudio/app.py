"""The routes that Label Studio calls: its protocol for machine-learning backends.

Label Studio asks for /health and /setup when a model is connected, for /predict when a task is
opened or predictions are retrieved, and sends annotations to /webhook. Older versions send all of
them to /train. Statuses and answers are those of the package label-studio-ml 1.0.9.
"""

import base64
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from svfseg.errors import InputError
from svfseg.web.errors import BUG, CLOSE
from svfseg.web.labelstudio.payloads import (
    PredictRequest,
    SetupRequest,
    TrainRequest,
    VersionsRequest,
)
from svfseg.web.labelstudio.results import Prediction
from svfseg.web.labelstudio.session import LabelStudioSession
from svfseg.web.limits import Gate, Limits
from svfseg.web.validation import first_problem

log = logging.getLogger("svfseg.labelstudio")

# A brush mask is a list of numbers as text: some megabytes for a large image. A fit by /train is
# waited for. The command says who may ask: see `svfseg.web.limits.Limits`.
LIMITS = Limits(local=False, max_bytes=200_000_000, at_once=1000, seconds=3600)
# What Label Studio is told before the first fit.
INITIAL = "INITIAL"

# Characters of a line in an answer.
_LINE = 500

router = APIRouter()


class PasswordAsToken:
    """ASGI middleware that takes the password of basic authentication as the token.

    Label Studio has no field for a token of a model, but one for a user and one for a password.

    Args:
        app: the application; it finds the password as ``Authorization: Bearer``.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, its header in the other form."""
        if scope["type"] == "http":
            headers = [
                (name, _as_bearer(value) if name == b"authorization" else value)
                for name, value in scope["headers"]
            ]
            scope = {**scope, "headers": headers}
        await self.app(scope, receive, send)


def _as_bearer(header: bytes) -> bytes:
    scheme, _, coded = header.partition(b" ")
    if scheme.lower() != b"basic":
        return header
    try:
        _, colon, password = base64.b64decode(coded.strip(), validate=True).partition(b":")
    except ValueError:
        return header
    return b"Bearer " + password if colon else header


class ModelVersion(TypedDict):
    """The answer to /setup."""

    model_version: str


class Predictions(ModelVersion):
    """The answer to /predict: a prediction for each task, none before the first fit."""

    results: list[Prediction]


def _session(request: Request) -> LabelStudioSession:
    session: LabelStudioSession = request.app.state.session
    return session


SessionDep = Annotated[LabelStudioSession, Depends(_session)]


def create_backend(session: LabelStudioSession, limits: Limits = LIMITS) -> FastAPI:
    """Make the application, to be run by any ASGI server in one process.

    Args:
        session: what predicts and fits; closed when the application ends.
        limits: what a request may be.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        session.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    app.state.session = session
    app.add_middleware(Gate, limits=limits)
    app.add_middleware(PasswordAsToken)
    app.add_exception_handler(RequestValidationError, _refuse_body)
    app.add_exception_handler(InputError, _refuse)
    app.add_exception_handler(OSError, _admit_disk)
    app.add_exception_handler(Exception, _admit_bug)
    app.include_router(router)
    return app


@router.get("/")
@router.get("/health")
def health() -> dict[str, str | None]:
    """Say that the backend answers."""
    return {"status": "UP", "model_dir": None, "v2": "1"}


@router.get("/metrics")
def metrics() -> dict[str, str]:
    """Give no metrics, as label-studio-ml does."""
    return {}


@router.post("/setup")
def setup(body: SetupRequest, session: SessionDep) -> ModelVersion:
    """Take the labeling configuration, and give the version of the fitted task."""
    if body.label_config:
        session.configure(body.label_config)
    return {"model_version": session.version or INITIAL}


@router.post("/predict")
def predict(body: PredictRequest, session: SessionDep) -> Predictions:
    """Predict tasks; the configuration that comes with them is the project's present one."""
    if body.label_config:
        session.configure(body.label_config)
    results = session.predict(body.tasks)
    return {"results": results, "model_version": session.version or INITIAL}


@router.post("/webhook", status_code=201)
def webhook(event: dict[str, Any], session: SessionDep) -> dict[str, str]:
    """Take an event; a fit begins some seconds after the last one."""
    action = event.get("action")
    if not isinstance(action, str):
        raise InputError(f"the event has the action {action!r}: expected its name")
    session.receive(action, event)
    return {"job_id": str(int(time.time()))}


@router.post("/train", status_code=201, response_model=None)
def train(body: TrainRequest, session: SessionDep) -> dict[str, str] | JSONResponse:
    """Take annotated tasks, and fit before the answer."""
    if not body.annotations:
        return JSONResponse("No annotations found.", 400)
    session.receive_tasks(body.annotations)
    return {}


@router.get("/is_training")
def is_training(session: SessionDep) -> dict[str, str | bool]:
    """Say that nobody needs to wait: the task that was fitted last answers during a fit."""
    version = session.version or INITIAL
    return {"is_training": False, "backend": "none", "model_version": version}


@router.post("/versions", response_model=None)
def versions(body: VersionsRequest) -> dict[str, list[str] | str | None] | PlainTextResponse:
    """Give no older versions: there is one fitted task."""
    if body.project is None:
        return PlainTextResponse("No project provided", 400)
    return {"versions": [], "model_dir": None, "v2": "1"}


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    # label-studio-ml answers so: a status of Label Studio's own would say no more to it
    status = 400 if request.url.path == "/webhook" else 500
    return _answer(request, str(error), status)


async def _refuse_body(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problem = first_problem(error)
    return _answer(request, f"the body is not Label Studio's ({problem})", 400)


async def _admit_disk(request: Request, error: Exception) -> JSONResponse:
    return _answer(request, f"nothing is stored: {error}", 507)


async def _admit_bug(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": BUG}, 500, CLOSE)


def _answer(request: Request, line: str, status: int) -> JSONResponse:
    # what is wrong may be a text that is no Unicode, or a long one
    line = " ".join(line.encode("utf-8", "backslashreplace").decode().split())
    line = line if len(line) <= _LINE else f"{line[:_LINE]} (cut off)"
    log.warning("%s: %s", request.url.path, line)
    return JSONResponse({"detail": line}, status)
