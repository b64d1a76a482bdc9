"""Refusals over HTTP: a status and {"error": one clear line}, whatever went wrong."""

from http import HTTPStatus

from fastapi import FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as PlainHTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from svfseg.errors import InputError

BUG = "this is a bug of the server, not of your input: please report it with the lines of its log"

# The header of an answer after which the server closes the connection.
CLOSE = {"Connection": "close"}


class Problem(BaseModel):
    """The body of every refusal."""

    error: str = Field(
        description="One line: what the request holds, what was expected, and what to do."
    )


# The refusals that every route may answer, for its ``responses``.
PROBLEMS: dict[int | str, dict[str, object]] = {
    status: {"model": Problem, "description": text}
    for status, text in (
        (401, "The token is missing or wrong."),
        (413, "The upload is too large."),
        (422, "What was sent is not what is expected."),
        (503, "Too many requests at once: try again."),
        (504, "It took too long."),
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
    return JSONResponse({"error": " ".join(line.split())}, status, headers)


def explain_problems(app: FastAPI) -> None:
    """Make an application answer every error in this form.

    An `InputError` is the client's mistake. Any exception without a handler of its own is a bug of
    the program: the answer says so, and the server writes the traceback to its log.
    """

    @app.exception_handler(PlainHTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        line = str(error.detail)
        if line == HTTPStatus(error.status_code).phrase:  # raised by the framework, which says less
            line = f"{request.method} {request.url.path} is not a route: /docs lists all routes"
        elif error.status_code == 400:
            line = f"the body cannot be read ({line}): send it as /docs says"
        return problem(error.status_code, line, dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first, *more = error.errors()
        if "UploadFile" in first["msg"]:
            first = {**first, "msg": "expected a file"}
        where = ".".join(map(str, first["loc"][1:])) or "the body"
        value, expected = first.get("input"), str(first["msg"])
        what = f" is {value!r:.60}" if isinstance(value, (str, int, float)) else ""
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

    @app.exception_handler(InputError)
    async def unfit(request: Request, error: InputError) -> JSONResponse:
        return problem(422, str(error))

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> JSONResponse:
        # the server closes the connection after it has written the traceback to its log
        return problem(500, BUG, CLOSE)
