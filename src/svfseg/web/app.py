"""The application of the page."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from svfseg.web.errors import explain_problems
from svfseg.web.limits import Gate
from svfseg.web.project import PageProject
from svfseg.web.routes import images, learning, marks, page
from svfseg.web.routes.page_dependencies import set_page
from svfseg.web.settings import PageSettings
from svfseg.web.worker import Worker

# Only what this server sends, and pictures that the page makes itself.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)


def create_page(project: PageProject, settings: PageSettings | None = None) -> FastAPI:
    """Make the application, to be run by any ASGI server in one process.

    ``app.state.worker`` is its `Worker`.

    Args:
        project: what the page displays and changes; closed when the application ends.
        settings: how it runs.
    """
    settings = PageSettings() if settings is None else settings
    worker = Worker(project, settings.model, settings.device)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        worker.close()
        project.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    set_page(app, project, worker, settings)
    app.add_middleware(Gate, limits=settings.limits)
    app.add_middleware(SafeHeaders)  # added last, so it is outermost
    explain_problems(app)
    for module in (page, images, marks, learning):
        app.include_router(module.router)
    app.mount("/static", StaticFiles(directory=page.STATIC))
    return app


class SafeHeaders:
    """ASGI middleware that adds to every answer the headers that keep a browser careful.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and add the headers to its answer."""

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = POLICY
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        await self.app(scope, receive, answer)
