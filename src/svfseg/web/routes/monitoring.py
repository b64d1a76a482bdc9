"""Routes of the service that say how it is: health, metrics, and the page of all routes."""

from typing import Literal

import prometheus_client
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from svfseg._version import __version__
from svfseg.web.api_docs import render_reference
from svfseg.web.routes.service_dependencies import MetricsDep, SettingsDep, binary_responses

# The page of routes runs no script and loads nothing.
POLICY = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}

router = APIRouter()


class Health(BaseModel):
    """That the service answers."""

    status: Literal["ok"] = "ok"
    version: str = __version__


@router.head("/health", include_in_schema=False)
@router.get("/health", summary="Whether the service answers")
async def health() -> Health:
    """It needs no token, and answers during fits and when too many requests are in."""
    return Health()


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses=binary_responses("text/plain"),
)
async def figures(metrics: MetricsDep) -> Response:
    """Requests, their seconds, predicted images, tasks in memory, and jobs that run or wait."""
    text = prometheus_client.generate_latest(metrics.registry)
    return Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)


@router.get("/docs", include_in_schema=False)
async def reference(request: Request, settings: SettingsDep) -> HTMLResponse:
    """Show every route with an example."""
    app: FastAPI = request.app
    base = str(request.base_url).rstrip("/")
    page = render_reference(app.openapi(), base, settings.limits.token is not None)
    return HTMLResponse(page, headers=POLICY)
