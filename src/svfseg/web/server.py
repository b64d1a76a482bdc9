"""A socket to listen on, and a server that answers on it until it is told to stop."""

import importlib.util
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from svfseg.errors import InputError


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
    app: Any, listening: socket.socket, seconds: float, count_jobs: Callable[[], int]
) -> None:
    """Answer until SIGTERM or SIGINT, and let running requests finish.

    Args:
        app: an ASGI application.
        listening: where.
        seconds: that they have for it.
        count_jobs: gives the number of jobs in threads of the application; those that still run
            in the end are given up.
    """
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", server_header=False)
    config.timeout_graceful_shutdown = max(1, int(seconds))
    server = uvicorn.Server(config)

    # uvicorn raises the signal again once it has stopped: a stop that was asked for is no failure
    def stop(*_: object) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    server.run(sockets=[listening])
    if count_jobs():  # nobody waits for them any more; files are whole in any case
        sys.stdout.flush()
        os._exit(0)


def is_local_host(host: str, token: str | None) -> bool:
    """Whether only this machine reaches an address; one that others reach needs a token."""
    from svfseg.web.limits import is_loopback

    local = is_loopback(host)
    if not local and token is None:
        raise InputError(
            f"--host {host} is reached by others, and there is no token: set SVFSEG_TOKEN, or "
            "listen on 127.0.0.1"
        )
    return local


def address_of(host: str, listening: socket.socket) -> str:
    """The URL of a listening socket, for a person to open."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}"


def listen(host: str, port: int) -> socket.socket:
    """Open a socket to answer on; port 0 takes a free one.

    Raises:
        InputError: the address cannot be listened on.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=256)
    except (OSError, OverflowError) as error:
        # strerror of a socket says the address once more
        number = getattr(error, "errno", None)
        why = str(error) if number is None or number < 0 else os.strerror(number)
        raise InputError(
            f"cannot listen on {host}, port {port} ({why}): choose another --port, 0 for a free "
            "one, or another --host"
        ) from error
    # asyncio does this for sockets that it opens: without it every answer waits 40 ms for an ACK
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
