"""The limits of requests: token, host name, size, number at once, and seconds."""

import asyncio
import contextlib
import hmac
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from svfseg.web.errors import CLOSE, problem
from svfseg.web.places import Places, is_loopback, neighbourhood

COOKIE = "svfseg_token"
RETRY = {"Retry-After": "5", **CLOSE}
# A refusal reads an upload for this long, so that the client reads the answer, then closes.
DRAIN_SECONDS = 5.0
# An upload may keep the server waiting for this long, and longer by the time that so many bytes a
# second would take: a line that stalls is borne, a place held by drops is not.
UPLOAD_PATIENCE, SLOWEST_UPLOAD = 10.0, 1000
# Uploads cost little while they come, so more of them may be under way than requests may run.
UPLOADS = 4


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
        at_once: largest number of requests that run or wait; four times as many may still be
            sending their bodies. One address of another machine gets half of each.
        seconds: longest time of a request with its upload, seconds.
        open_paths: paths that need no token; one that ends with ``/*`` stands for all below it.
        uncounted_paths: paths that are answered whatever number of requests run or wait.
        origins: origins such as http://localhost:3000 whose pages may ask too; None where there is
            no setting for it.
    """

    token: str | None = None
    local: bool = True
    hosts: frozenset[str] = frozenset()
    max_bytes: int = 64_000_000
    at_once: int = 16
    seconds: float = 120.0
    open_paths: frozenset[str] = frozenset({"/health"})
    uncounted_paths: frozenset[str] = frozenset({"/health", "/metrics"})
    origins: frozenset[str] | None = None


class Gate:
    """ASGI middleware that refuses requests beyond `Limits`: they never reach the application.

    Args:
        app: the application.
        limits: what a request may be.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app = app
        self.limits = limits
        self.running = Places(limits.at_once)
        self.uploading = Places(UPLOADS * limits.at_once)

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
        host = neighbourhood(request.client.host if request.client else "")
        refusal = self._refusal(request) or (self._crowd(request, host) if counted else None)
        if refusal is not None:
            # a client that expects 100 Continue has not sent its body yet
            if "expect" not in request.headers:
                await _drain(receive)
            await refusal(scope, receive, send)
            return
        taken = [] if not counted else [self.uploading if _has_body(request) else self.running]
        for places in taken:
            places.take(host)
        try:
            await self._pass_on(scope, _Upload(self, receive, host, taken).read, send)
        finally:
            for places in taken:
                places.leave(host)

    def _refusal(self, request: Request) -> JSONResponse | None:
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
            known = site == host or _hostname(site) in limits.hosts
            if origin is not None and not known and origin not in (limits.origins or ()):
                return problem(403, self._foreign(origin), CLOSE)
        length = request.headers.get("content-length", "0")
        if length.isdecimal() and int(length) > limits.max_bytes:
            return problem(413, _too_large(f"{int(length):,} bytes", limits.max_bytes), CLOSE)
        return None

    def _crowd(self, request: Request, host: str) -> JSONResponse | None:
        if not self.running.is_open(host):
            return problem(503, self.full(), RETRY)
        if _has_body(request) and not self.uploading.is_open(host):
            line = f"{len(self.uploading)} uploads are under way, as many as may: try again"
            return problem(503, line, RETRY)
        return None

    def full(self) -> str:
        """Give the line for a request that finds no place to run."""
        return f"{len(self.running)} requests are waiting or running, as many as may: try again"

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            async with asyncio.timeout(self.limits.seconds) as clock:
                await self.app(scope, receive, answer)
        except TimeoutError:
            if started or not clock.expired():
                raise
            line = (
                f"it took more than {self.limits.seconds:g} s: a job that had begun goes on, a "
                "waiting one was dropped; send less, or let the administrator start the service "
                "with a larger max_seconds"
            )
            await problem(504, line, CLOSE)(scope, receive, send)

    def _foreign(self, origin: str) -> str:
        line = f"the request is from a page of {origin}: only this service's own pages may"
        if self.limits.origins is None:
            return line
        return f"{line}; the administrator can start it with this origin in allow_origin"


class _Upload:
    """The body of one request, as it comes.

    It has a place among the uploads until it is there, and then one among the requests that run:
    who sends slowly takes no place from those who are served.
    """

    def __init__(self, gate: Gate, receive: Receive, host: str, taken: list[Places]) -> None:
        self.gate, self.receive, self.host = gate, receive, host
        self.taken = taken
        self.size, self.waited = 0, 0.0

    async def read(self) -> Message:
        """Give the next part of the body."""
        message = await self._next()
        self.size += len(message.get("body", b""))
        most = self.gate.limits.max_bytes
        if self.size > most:  # a stream need not say its length
            await _drain(self.receive, message)
            raise HTTPException(413, _too_large("more bytes", most), CLOSE)
        if not message.get("more_body", False) and self.taken == [self.gate.uploading]:
            if not self.gate.running.is_open(self.host):
                raise HTTPException(503, self.gate.full(), RETRY)
            self.taken.pop().leave(self.host)
            self.gate.running.take(self.host)
            self.taken.append(self.gate.running)
        return message

    async def _next(self) -> Message:
        """The waits alone count: what the server takes to read on is not the client's delay."""
        if self.taken != [self.gate.uploading]:  # it is there, or it is waited for its sender's end
            return await self.receive()
        loop = asyncio.get_running_loop()
        start = loop.time()
        left = UPLOAD_PATIENCE + self.size / SLOWEST_UPLOAD - self.waited
        try:
            async with asyncio.timeout(left):
                message = await self.receive()
        except TimeoutError:
            line = (
                f"{self.size:,} bytes of the upload came in {self.waited + left:.0f} s, which is "
                f"too slow: expected {SLOWEST_UPLOAD:,} bytes a second; send it again"
            )
            raise HTTPException(408, line, CLOSE) from None
        self.waited += loop.time() - start
        return message


async def _drain(receive: Receive, message: Message | None = None) -> None:
    """Read an upload to its end, for a while: a client that still sends reads no answer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while message is None or message.get("more_body", False):
                message = await receive()


def _too_large(size: str, most: int) -> str:
    return (
        f"the upload has {size}, and at most {most:,} bytes are read: send smaller or fewer "
        "images; the administrator can start the service with a larger max_upload"
    )


def _has_body(request: Request) -> bool:
    length = request.headers.get("content-length", "0")
    return length.strip() != "0" or "transfer-encoding" in request.headers


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
