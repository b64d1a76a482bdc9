"""Refusals over HTTP: a status and {"error": one clear line}, whatever went wrong."""

import errno
import logging
from http import HTTPStatus

from fastapi import FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as PlainHTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Match

from svfseg.errors import InputError

BUG = "this is a bug of the server, not of your input: please report it with the lines of its log"

# The header of an answer after which the server closes the connection.
CLOSE = {"Connection": "close"}

# What a disk, a quota and a limit of file sizes raise when there is no space left.
_NO_SPACE = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG)
FULL = "the disk of the server is full: let its administrator make space, and send it again"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

log = logging.getLogger("svfseg.web")


class Problem(BaseModel):
    """The body of every refusal."""

    error: str = Field(
        description="One line: what the request holds, what was expected, and what to do."
    )


# The refusals that every route may answer, for its ``responses``.
PROBLEMS: dict[int | str, dict[str, object]] = {
    status: {"model": Problem, "description": text}
    for status, text in (
        (400, "The body cannot be read."),
        (401, "The token is missing or wrong."),
        (403, "The request is from a page of another origin."),
        (408, "The upload came too slowly."),
        (413, "The upload is too large."),
        (421, "The request is for another host."),
        (422, "What was sent is not what is expected."),
        (503, "Too many requests at once: try again."),
        (504, "It took too long."),
        (507, "The disk of the server is full."),
    )
}


class UnknownNameError(LookupError):
    """There is no task, image or result of that name: status 404."""


class DamagedTaskError(ValueError):
    """A task is there and cannot be used: status 409."""


class BusyError(ValueError):
    """A job cannot begin while another one runs: status 409."""


class OutdatedError(BusyError):
    """A change was made on an older state than the present one: status 409."""


def problem(status: int, line: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Make the answer to a request that is refused.

    Args:
        status: status of the answer.
        line: what is wrong, and what to do.
        headers: further ones of the answer.
    """
    # halves of surrogates, which JSON may hold, have no bytes in UTF-8
    plain = " ".join(line.split()).encode("utf-8", "backslashreplace").decode()
    return JSONResponse({"error": plain}, status, headers)


def is_full(error: BaseException | None) -> bool:
    """Say whether an error, or what caused it, is that a file found no space."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            return True
        error = error.__cause__ or error.__context__
    return False


def explain_problems(app: FastAPI) -> None:
    """Make an application answer every error in this form.

    An `InputError` is the client's mistake. Any exception without a handler of its own is a bug of
    the program: the answer says so, and the server writes the traceback to its log.
    """

    def full(error: Exception) -> JSONResponse:
        log.error("the disk is full: %s", error.__cause__ or error)
        return problem(507, FULL)

    @app.exception_handler(PlainHTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 400 and is_full(error.__cause__):  # of an upload, as it came
            return full(error)
        line = str(error.detail)
        if line == HTTPStatus(error.status_code).phrase:  # raised by the framework, which says less
            line = f"{request.method:.20} {request.url.path:.100} is not a route: see /docs for all"
        elif error.status_code == 400:
            line = f"the body cannot be read ({line}): send it as /docs says"
        headers = dict(error.headers or {})
        if error.status_code == 405:  # the framework names the methods of one route alone
            headers = {"Allow": ", ".join(_methods(request))}
        return problem(error.status_code, line, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first, *more = error.errors()
        if "UploadFile" in first["msg"]:
            first = {**first, "msg": "expected a file"}
        where = ".".join(map(str, first["loc"][1:])) or "the body"
        value, expected = first.get("input"), str(first["msg"]).removeprefix("Value error, ")
        what = f" is {_shown(value)}" if isinstance(value, (str, int, float)) else ""
        others = f" (and {len(more)} more)" if more else ""
        line = f"{where}{what}: {expected[:1].lower()}{expected[1:]}{others}; see /docs"
        return problem(422, line)

    @app.exception_handler(UnknownNameError)
    async def unknown(request: Request, error: UnknownNameError) -> JSONResponse:
        return problem(404, str(error))

    @app.exception_handler(BusyError)
    @app.exception_handler(DamagedTaskError)
    async def conflict(request: Request, error: Exception) -> JSONResponse:
        return problem(409, str(error))

    @app.exception_handler(OSError)
    async def failed(request: Request, error: OSError) -> JSONResponse:
        if not is_full(error):
            raise error
        return full(error)

    @app.exception_handler(InputError)
    async def unfit(request: Request, error: InputError) -> JSONResponse:
        return problem(422, str(error))

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> JSONResponse:
        # the server closes the connection after it has written the traceback to its log
        return problem(500, BUG, CLOSE)


def _methods(request: Request) -> list[str]:
    """The methods that some route has for the path of a request."""
    app: FastAPI = request.app
    return [
        method
        for method in METHODS
        if any(r.matches({**request.scope, "method": method})[0] is Match.FULL for r in app.routes)
    ]


def _shown(value: str | int | float) -> str:
    """A value from outside on one line: Python refuses to print very long numbers."""
    try:
        return f"{value!r:.60}"
    except ValueError:
        return "a number of very many digits"
