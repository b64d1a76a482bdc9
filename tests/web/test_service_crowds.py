"""Clients that connect and say nothing, or say it slowly, stop the service for nobody else."""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from svfseg.web import connections, limits
from svfseg.web.connections import Bounds
from svfseg.web.errors import explain_problems
from svfseg.web.limits import Gate, Limits
from svfseg.web.places import Places, neighbourhood, share_of
from svfseg.web.server import connection_limit, listen, make_server

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
ALONE = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
from svfseg.web.server import listen, serve

async def answer(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"read"})

with listen("127.0.0.1", 0) as listening:
    print(listening.getsockname()[1], flush=True)
    serve(answer, listening, 1, lambda: 0)
"""


async def answer(scope, receive, send, body: bytes = b"read") -> None:  # type: ignore[no-untyped-def]
    """An application that reads the body, and answers."""
    while scope["type"] == "http" and (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def answer_short(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
    if scope["type"] == "http":
        await answer(scope, receive, send)


def gated(most: int) -> FastAPI:
    """The same behind a gate."""
    app = FastAPI()
    explain_problems(app)
    app.add_middleware(Gate, limits=Limits(at_once=most))

    @app.post("/")
    @app.get("/")
    async def read(request: Request) -> Response:
        await request.body()
        return Response(b"read")

    return app


async def answer_long(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
    if scope["type"] == "http":
        await answer(scope, receive, send, b"\0" * 30_000_000)


@contextlib.contextmanager
def served(app, most: int = 20, seconds: float = 10) -> Iterator[tuple[str, int]]:  # type: ignore[no-untyped-def]
    """A server in a thread; gives its address."""
    listening = listen("127.0.0.1", 0)
    server = make_server(app, 1, Bounds(most, seconds))
    server.config.lifespan = "off"
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield listening.getsockname()
    finally:
        server.should_exit = True
        thread.join()


@contextlib.contextmanager
def opened(
    address: tuple[str, int], number: int, data: bytes = b""
) -> Iterator[list[socket.socket]]:
    """Connections that say no more than this."""
    with contextlib.ExitStack() as stack:
        made = [
            stack.enter_context(socket.create_connection(address, timeout=5)) for _ in range(number)
        ]
        for each in made:
            each.sendall(data)
        yield made


def asked(address: tuple[str, int]) -> int:
    host, port = address
    return httpx.get(f"http://{host}:{port}/", timeout=5).status_code


def ended(connection: socket.socket, within: float = 5.0) -> bool:
    """Whether the server closes a connection, without an answer."""
    connection.settimeout(within)
    with contextlib.suppress(ConnectionError):
        try:
            return connection.recv(1) == b""
        except TimeoutError:
            return False
    return True


def test_more_silent_connections_than_files_stop_nobody() -> None:
    pytest.importorskip("resource")
    command = [sys.executable, "-c", ALONE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = ("127.0.0.1", int(process.stdout.readline()))
        try:
            with opened(address, 130):
                assert [asked(address) for _ in range(3)] == [200] * 3
        finally:
            process.terminate()
    assert process.returncode == 0


def test_the_connection_that_waited_longest_gives_way() -> None:
    with served(answer_short, most=4) as address, opened(address, 4) as first:
        assert asked(address) == 200
        assert ended(first[0])
        assert not ended(first[3], 0.2)


@pytest.mark.parametrize("start", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_a_head_that_does_not_come_is_not_waited_for(
    start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither at first, nor in its middle, nor after an answer."""
    monkeypatch.setattr(connections, "TICK", 0.05)
    with served(answer_short, seconds=0.6) as address, opened(address, 1, start) as (slow,):
        if start.endswith(b"\r\n\r\n"):
            time.sleep(0.2)
            assert b"read" in slow.recv(1000)
        with contextlib.suppress(ConnectionError):
            for _ in range(30):
                slow.sendall(b"a")
                time.sleep(0.1)
            pytest.fail("it was waited for")


def test_an_answer_that_is_not_read_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "TICK", 0.05)
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with (
        served(answer_long, seconds=0.5) as address,
        opened(address, 2, request) as (deaf, slow),
    ):
        read = 0
        for _ in range(8):  # as slowly as is borne
            time.sleep(0.2)
            read += len(slow.recv(2_000_000))
        with contextlib.suppress(ConnectionError):
            while read < 30_000_000 and (part := slow.recv(2_000_000)):
                read += len(part)
        assert read > 30_000_000
        taken = 0
        with contextlib.suppress(ConnectionError):
            while part := deaf.recv(2_000_000):
                taken += len(part)
        assert taken < 30_000_000


def test_connections_of_one_address_are_a_share() -> None:
    """Whole addresses of IPv4, networks of IPv6; this machine may take all."""
    assert (
        neighbourhood("2001:db8::1")
        == neighbourhood("2001:db8::ffff:1")
        != neighbourhood("2001:db9::1")
    )
    assert (
        neighbourhood("::ffff:10.0.0.7") == neighbourhood("10.0.0.7") != neighbourhood("10.0.0.8")
    )
    assert neighbourhood("unknown") == "unknown"
    assert [share_of(9, host) for host in ("10.0.0.7", "127.0.0.1", "::1", "")] == [4, 9, 9, 4]
    assert share_of(1, "10.0.0.7") == 1
    places = Places(4)
    for _ in range(2):
        assert places.is_open("10.0.0.7")
        places.take("10.0.0.7")
    assert not places.is_open("10.0.0.7")
    assert places.is_open("10.0.0.8")
    places.leave("10.0.0.7")
    assert len(places) == 1
    assert 8 <= connection_limit() <= 1000


def test_slow_uploads_leave_places_and_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UPLOAD_PATIENCE", 1.0)
    with served(gated(2), most=40) as address, opened(address, 8, HEAD) as slow:
        for each in slow:
            each.sendall(b"a")
        assert asked(address) == 200  # those that send take no place of those that are served
        url = "http://{}:{}/".format(*address)
        refused = httpx.post(url, content=b"a", timeout=5)
        assert refused.status_code == 503
        assert "8 uploads are under way" in refused.json()["error"]
        for _ in range(20):
            time.sleep(0.1)
            with contextlib.suppress(OSError):
                slow[0].sendall(b"a")
        cut = slow[1].recv(10_000)
        assert b" 408 " in cut
        assert b"too slow: expected 1,000 bytes a second" in cut
        assert [httpx.post(url, content=b"a", timeout=5).text for _ in range(9)] == ["read"] * 9


def test_a_fast_upload_may_be_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience grows with what came: 1,000 bytes for each second."""
    monkeypatch.setattr(limits, "UPLOAD_PATIENCE", 0.3)
    with served(gated(2)) as address:

        def parts() -> Iterator[bytes]:
            for _ in range(8):
                yield b"a" * 1000
                time.sleep(0.1)

        assert httpx.post("http://{}:{}/".format(*address), content=parts()).text == "read"
