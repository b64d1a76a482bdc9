"""Open a socket to listen on, and answer on it until SIGTERM or SIGINT."""

import importlib.util
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from svfseg.errors import InputError

if TYPE_CHECKING:
    from starlette.types import ASGIApp


def need_packages(*modules: str, extra: str = "app") -> None:
    """Check that the packages of an extra are installed.

    Raises:
        InputError: one of them is not; the message says how to install it.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            name = module.replace("_", "-")
            raise InputError(f"serving needs the package {name}: pip install 'svfseg[{extra}]'")


def serve(
    app: "ASGIApp", listening: socket.socket, seconds: float, count_jobs: Callable[[], int]
) -> None:
    """Answer until SIGTERM or SIGINT, and let running requests finish.

    Args:
        app: an ASGI application.
        listening: the socket, see `listen`.
        seconds: longest time that running requests have to finish.
        count_jobs: gives the number of jobs in threads of the application; the process does not
            wait for jobs that still run in the end.
    """
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", server_header=False)
    config.timeout_graceful_shutdown = max(1, int(seconds))
    server = uvicorn.Server(config)

    # uvicorn raises the signal again once it has stopped, which would be a failure of the process
    def stop(*_: object) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    server.run(sockets=[listening])
    if count_jobs():  # nobody waits for them any more, and no file is left half written
        sys.stdout.flush()
        os._exit(0)


def is_local_host(host: str, token: str | None) -> bool:
    """Say whether only this machine reaches an address.

    Args:
        host: address to listen on.
        token: what requests must carry; None asks for no token.

    Raises:
        InputError: other machines reach the address, and there is no token.
    """
    from svfseg.web.limits import is_loopback

    local = is_loopback(host)
    if not local and token is None:
        raise InputError(
            f"other machines reach {host}, and there is no token: set SVFSEG_TOKEN, or listen on "
            "127.0.0.1",
            settings=("host",),
        )
    return local


def address_of(host: str, listening: socket.socket) -> str:
    """Give the URL of a listening socket, for a person to open."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listening.getsockname()[1]}"


def listen(host: str, port: int) -> socket.socket:
    """Open a socket to answer on.

    Args:
        host: address to listen on.
        port: to listen on; 0 takes a free one.

    Raises:
        InputError: the address cannot be listened on.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=256)
    except (OSError, OverflowError) as error:
        # the text of an OSError of a socket holds the address once more
        number = error.errno if isinstance(error, OSError) else None
        why = str(error) if number is None or number < 0 else os.strerror(number)
        raise InputError(
            f"cannot listen on {host}, port {port} ({why}): choose another port, 0 for a free one, "
            "or another host",
            settings=("host", "port"),
        ) from error
    # asyncio does this for sockets that it opens: without it every answer waits 40 ms for an ACK
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
