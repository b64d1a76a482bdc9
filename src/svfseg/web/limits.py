"""The limits of requests: token, host name, size, number at once, and seconds."""

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
# A refusal reads an upload for this long, so that the client reads the answer, then closes.
DRAIN_SECONDS = 5.0


@dataclass(frozen=True)
class Limits:
    """What a request may be; all others are refused.

    Attributes:
        token: what requests must have as ``Authorization: Bearer`` or in the cookie; None asks for
            no token.
        local: whether only requests are answered whose Host header names this machine's loopback;
            a site whose name was made to point to this machine then reads nothing.
        hosts: further host names that are answered, such as that of a proxy.
        max_bytes: largest body of a request, bytes.
        at_once: largest number of requests that run or wait.
        seconds: longest time of a request with its upload, seconds.
        open_paths: paths that need no token; one that ends with ``/*`` stands for all below it.
        uncounted_paths: paths that are answered whatever number of requests run or wait.
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
    """ASGI middleware that refuses requests beyond `Limits`: they never reach the application.

    Args:
        app: the application.
        limits: what a request may be.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app = app
        self.limits = limits
        self.inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on to the application."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no route here is a WebSocket
            await send({"type": "websocket.close", "code": 1008})
            return
        counted = not _covers(self.limits.uncounted_paths, scope["path"])
        request = Request(scope)
        refusal = self._refusal(request, counted)
        if refusal is not None:
            # a client that expects 100 Continue has not sent its body yet
            if "expect" not in request.headers:
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
                "127.0.0.1; the administrator can start it with another name in allow_host",
                CLOSE,
            )
        bearer = _is_token(limits.token, _bearer(request))
        if not bearer and not _covers(limits.open_paths, request.url.path):
            if limits.token and not _is_token(limits.token, request.cookies.get(COOKIE)):
                line = "the token is missing or wrong: send the header Authorization: Bearer TOKEN"
                return problem(401, line, {"WWW-Authenticate": "Bearer", **CLOSE})
            # a browser sends cookies, and reaches this machine, for pages of any site
            origin = request.headers.get("origin")
            site = "" if origin is None else origin.partition("//")[2]
            if origin is not None and site != host and _hostname(site) not in limits.hosts:
                line = f"the request is from a page of {origin}: only this service's own pages may"
                return problem(403, line, CLOSE)
        length = request.headers.get("content-length", "0")
        if length.isdecimal() and int(length) > limits.max_bytes:
            return problem(413, self._too_large(f"{int(length):,} bytes"), CLOSE)
        if counted and self.inside >= limits.at_once:
            line = f"{self.inside} requests are waiting or running, as many as may: try again"
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
                raise HTTPException(413, self._too_large("more bytes"), CLOSE)
            return message

        try:
            async with asyncio.timeout(self.limits.seconds) as clock:
                await self.app(scope, read, answer)
        except TimeoutError:
            if started or not clock.expired():
                raise
            line = (
                f"it took more than {self.limits.seconds:g} s: a job that had begun goes on, a "
                "waiting one was dropped; send less, or let the administrator start the service "
                "with a larger max_seconds"
            )
            await problem(504, line, CLOSE)(scope, receive, send)

    async def _drain(self, receive: Receive, message: Message | None = None) -> None:
        """Read an upload to its end, for a while: a client that still sends reads no answer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while message is None or message.get("more_body", False):
                    message = await receive()

    def _too_large(self, size: str) -> str:
        return (
            f"the upload has {size}, and at most {self.limits.max_bytes:,} bytes are read: send "
            "smaller or fewer images; the administrator can start the service with a larger "
            "max_upload"
        )


def is_loopback(host: str) -> bool:
    """Say whether a host name or address is this machine's loopback."""
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
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _is_token(token: str | None, sent: str | None) -> bool:
    """Compared in a time that does not depend on where the two differ."""
    if token is None or sent is None:
        return False
    return hmac.compare_digest(token.encode(), sent.encode("latin-1", "replace"))


def _covers(paths: Collection[str], path: str) -> bool:
    return path in paths or any(p.endswith("/*") and path.startswith(p[:-1]) for p in paths)
