"""Let pages of other origins ask, which browsers find out in advance (CORS)."""

import re
from collections.abc import Collection

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from svfseg.errors import InputError

# What a browser may send after it has asked, and for how many seconds it need not ask again.
ALLOWED = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type",
    "Access-Control-Max-Age": "600",
}
# What a script of another origin may read of an answer, besides its body.
READ = "Content-Disposition, Retry-After"
_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?")


def check_origins(origins: Collection[str]) -> frozenset[str]:
    """Give back origins whose pages may ask.

    Args:
        origins: each as a browser sends it: scheme, host, and the port unless it is the usual one.

    Raises:
        InputError: one that no browser sends.
    """
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise InputError(
                f"allow_origin is {origin!r}: expected an origin as browsers send it, such as "
                "http://localhost:3000, without a path, in small letters",
                settings=("allow_origin",),
            )
    return frozenset(origins)


class CrossOrigin:
    """ASGI middleware that tells browsers which pages of other origins may ask.

    Args:
        app: the application.
        origins: the origins of these pages.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self.app = app
        self.origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a browser that asks in advance, or pass a request on and name its origin."""
        origin = Request(scope).headers.get("origin", "") if scope["type"] == "http" else ""
        if origin not in self.origins:
            await self.app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Access-Control-Allow-Origin"] = origin
                headers["Access-Control-Expose-Headers"] = READ
                headers.add_vary_header("Origin")
            await send(message)

        asked = "access-control-request-method" in Request(scope).headers
        if scope["method"] == "OPTIONS" and asked:  # it sends no token with this
            await Response(status_code=204, headers=ALLOWED)(scope, receive, answer)
        else:
            await self.app(scope, receive, answer)
