"""The page itself, the link that lets a browser in, and the state that the page displays."""

import hmac
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import FileResponse, RedirectResponse, Response
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from svfseg.annotations.writers import WRITERS
from svfseg.segmenter.adaptation import PRESETS
from svfseg.web.limits import COOKIE
from svfseg.web.project_view import ProjectView, view_project
from svfseg.web.routes.page_dependencies import ProjectDep, SettingsDep, WorkerDep
from svfseg.web.worker import Job

STATIC = Path(__file__).parents[1] / "static"

router = APIRouter()

# The revision that the page has; -1 of none.
Seen = Annotated[int, Query(alias="revision", ge=-1, le=2**53)]


class Progress(TypedDict):
    """The answer where nothing but the job may have changed."""

    revision: int
    job: Job


class PageView(ProjectView):
    """The whole state of the page."""

    job: Job
    formats: list[str]
    adapt: list[str]


@router.get("/")
def index() -> Response:
    """Send the page."""
    return FileResponse(STATIC / "index.html")


@router.get("/open/{token}")
def enter(token: str, settings: SettingsDep) -> Response:
    """Store the token of the link that is printed at the start in the browser."""
    right = settings.limits.token
    sent = token.encode("utf-8", "surrogatepass")
    if right is not None and not hmac.compare_digest(right.encode(), sent):
        raise HTTPException(
            401, "the link has another token than this page: open the one that was printed last"
        )
    # relative, as a proxy may serve the page below a path; lax, as the link is clicked in a mail
    response = RedirectResponse("../", 303)
    if right is not None:
        # a header holds bytes, which are those of UTF-8
        value = sent.decode("latin-1")
        response.set_cookie(COOKIE, value, httponly=True, samesite="lax")
    return response


@router.get("/api/state", response_model=None)
def state(project: ProjectDep, worker: WorkerDep, revision: Seen = -1) -> Progress | PageView:
    """Give the project, or only the job where nothing changed since a revision."""
    job = worker.job.copy()
    if revision == project.revision:
        return {"revision": revision, "job": job}
    return {
        **view_project(project),
        "job": job,
        "formats": list(WRITERS),
        "adapt": list(PRESETS),
    }
