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
    import uvicorn
    from starlette.types import ASGIApp

    from svfseg.web.connections import Bounds

# Connections of a process that may open very many files, or does not say how many.
MOST_CONNECTIONS, USUAL_CONNECTIONS = 1000, 256


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
    server = make_server(app, seconds)

    # uvicorn raises the signal again once it has stopped, which would be a failure of the process
    def stop(*_: object) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    server.run(sockets=[listening])
    if count_jobs():  # nobody waits for them any more, and no file is left half written
        sys.stdout.flush()
        os._exit(0)


def make_server(app: "ASGIApp", seconds: float, bounds: "Bounds | None" = None) -> "uvicorn.Server":
    """Make a server whose connections are bounded, in number and in the time that they wait.

    Args:
        app: an ASGI application.
        seconds: longest time that running requests have to finish after a stop.
        bounds: what connections may take; None asks the system how many there can be.
    """
    import uvicorn

    from svfseg.web.connections import Bounds, bounded

    bounds = bounds or Bounds(connection_limit())
    # as many are accepted at a time, before the oldest of too many can be closed
    backlog = max(8, bounds.most // 4)
    config = uvicorn.Config(
        app, log_level="warning", server_header=False, http=bounded(bounds), ws="none",
        backlog=backlog,
    )  # fmt: skip
    config.timeout_graceful_shutdown = max(1, int(seconds))
    return uvicorn.Server(config)


def connection_limit() -> int:
    """Give the number of connections that leaves half of the process's files to all else."""
    try:
        import resource
    except ImportError:  # Windows
        return USUAL_CONNECTIONS
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(8, min(MOST_CONNECTIONS, files // 2))


def check_token(token: str | None) -> None:
    """Raise an error if what is meant as a token protects nothing, or cannot be sent.

    Args:
        token: what requests must carry; None asks for no token.

    Raises:
        InputError: it is blank, or has a character that a header cannot hold.
    """
    if token is None:
        return
    if not token.strip():
        raise InputError(
            "the token is blank: give one, such as what 'openssl rand -hex 16' prints, or leave "
            "the option and SVFSEG_TOKEN out",
            settings=("token",),
        )
    if token != token.strip() or any(ord(each) < 32 or ord(each) == 127 for each in token):
        raise InputError(
            "the token begins or ends with a space, or holds a control character: requests "
            "cannot send that; give another one",
            settings=("token",),
        )


def is_local_host(host: str, token: str | None) -> bool:
    """Say whether only this machine reaches an address.

    Args:
        host: address to listen on.
        token: what requests must carry; None asks for no token.

    Raises:
        InputError: other machines reach the address, and there is no token, or a blank one.
    """
    from svfseg.web.places import is_loopback

    check_token(token)
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
