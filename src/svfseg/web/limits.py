"""What a request may be: who asks, under which name, how large, how many at once, how long."""

import asyncio
import contextlib
import hmac
import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from svfseg.web.errors import CLOSE, problem

COOKIE = "svfseg_token"
# A refusal waits this long for the rest of an upload, then closes the connection.
DRAIN_SECONDS = 5.0


@dataclass(frozen=True)
class Limits:
    """What is let in.

    Attributes:
        token: what requests carry as ``Authorization: Bearer`` or in the cookie; None: nothing.
        local: only Host headers that name this machine's loopback are answered, so that no page
            of a site whose name was made to point here reads anything.
        hosts: further names to answer to, as of a proxy in front.
        max_bytes: of a request's body.
        at_once: requests that are in, waiting ones too.
        seconds: that a request may take, its upload too.
        open_paths: paths that need no token; one that ends with ``/*`` opens all below.
        uncounted_paths: paths that are answered when the house is full.
    """

    token: str | None = None
    local: bool = True
    hosts: frozenset[str] = frozenset()
    max_bytes: int = 64_000_000
    at_once: int = 16
    seconds: float = 120.0
    open_paths: frozenset[str] = frozenset({"/health"})
    uncounted_paths: frozenset[str] = frozenset({"/health", "/metrics"})


class Gate:
    """ASGI middleware that keeps `Limits`; what it refuses never reaches the application.

    Args:
        app: the application.
        limits: to keep.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app = app
        self.limits = limits
        self.inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on within the limits."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # nothing here speaks WebSocket, so nothing passes unasked
            await send({"type": "websocket.close", "code": 1008})
            return
        counted = not _covers(self.limits.uncounted_paths, scope["path"])
        request = Request(scope)
        refusal = self._refusal(request, counted)
        if refusal is not None:
            if "expect" not in request.headers:  # else nothing is sent before it is asked for
                await self._drain(receive)
            await refusal(scope, receive, send)
            return
        self.inside += counted
        try:
            await self._pass_on(scope, receive, send)
        finally:
            self.inside -= counted

    def _refusal(self, request: Request, counted: bool) -> JSONResponse | None:
        limits, host = self.limits, request.headers.get("host", "")
        name = _hostname(host)
        if limits.local and not is_loopback(name) and name not in limits.hosts:
            return problem(
                421,
                f"the request is for {host or 'no host'}: this service answers to localhost and "
                "127.0.0.1; start it with --allow-host for another name",
                CLOSE,
            )
        bearer = _is_token(limits.token, _bearer(request))
        if not bearer and not _covers(limits.open_paths, request.url.path):
            if limits.token and not _is_token(limits.token, request.cookies.get(COOKIE)):
                line = "the token is missing or wrong: send the header Authorization: Bearer TOKEN"
                return problem(401, line, {"WWW-Authenticate": "Bearer", **CLOSE})
            # a browser sends cookies, and reaches this machine, for pages of any site
            origin = request.headers.get("origin")
            asking = "" if origin is None else origin.partition("//")[2]
            if origin is not None and asking != host and _hostname(asking) not in limits.hosts:
                line = f"the request is of a page of {origin}: only this service's own may ask"
                return problem(403, line, CLOSE)
        length = request.headers.get("content-length", "0")
        if length.isdecimal() and int(length) > limits.max_bytes:
            return problem(413, self._too_large(f"{int(length):,} bytes"), CLOSE)
        if counted and self.inside >= limits.at_once:
            line = f"{self.inside} requests are waiting or running, and no more may: try again"
            return problem(503, line, {"Retry-After": "5", **CLOSE})
        return None

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, size = False, 0

        async def answer(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        async def read() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.limits.max_bytes:  # a stream need not say its length
                await self._drain(receive, message)
                raise HTTPException(413, self._too_large("more"), CLOSE)
            return message

        try:
            async with asyncio.timeout(self.limits.seconds) as clock:
                await self.app(scope, read, answer)
        except TimeoutError:
            if started or not clock.expired():
                raise
            line = (
                f"it took more than {self.limits.seconds:g} s: what was begun goes on, what still "
                "waited was dropped; send less, or start the service with a larger --max-seconds"
            )
            await problem(504, line, CLOSE)(scope, receive, send)

    async def _drain(self, receive: Receive, message: Message | None = None) -> None:
        """Drop the rest of an upload, for a while: who still sends does not read the answer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while message is None or message.get("more_body", False):
                    message = await receive()

    def _too_large(self, found: str) -> str:
        return (
            f"the upload has {found}, and at most {self.limits.max_bytes:,} bytes are read: send "
            "smaller or fewer images, or start the service with a larger --max-upload"
        )


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's loopback."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _bearer(request: Request) -> str | None:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else None


def _is_token(token: str | None, given: str | None) -> bool:
    """Compared in a time that says nothing of where they differ."""
    if token is None or given is None:
        return False
    return hmac.compare_digest(token.encode(), given.encode("latin-1", "replace"))


def _covers(paths: Collection[str], path: str) -> bool:
    return path in paths or any(p.endswith("/*") and path.startswith(p[:-1]) for p in paths)
