"""Bounds on the connections of a server: how many, and how long each may keep it waiting."""

import asyncio
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from svfseg.web.places import neighbourhood, share_of

# Seconds between two looks at all connections.
TICK = 0.5
# Whoever reads an answer more slowly, in bytes a second, is not waited for.
SLOWEST = 1000


@dataclass(frozen=True)
class Bounds:
    """What connections may take.

    Attributes:
        most: largest number of connections; one address of another machine gets half.
        seconds: longest time until the head of a request is there.
    """

    most: int
    seconds: float = 10.0


class Connections:
    """All connections of a server; those that keep it waiting give way to others.

    Args:
        bounds: what they may take.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._open: dict[Connection, None] = {}
        self._watch: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Give the number of open connections."""
        return len(self._open)

    def add(self, connection: "Connection") -> None:
        """Let a connection in; where there are too many, the one that waited longest is cut."""
        self._open[connection] = None
        alike = [each for each in self._open if each.host == connection.host]
        if len(alike) > share_of(self.bounds.most, connection.host):
            self._cut_one(alike)
        elif len(self._open) > self.bounds.most:
            self._cut_one(list(self._open))
        if self._watch is None:
            self._watch = connection.loop.call_later(TICK, self._look, connection.loop)

    def remove(self, connection: "Connection") -> None:
        """Forget a connection that has ended."""
        self._open.pop(connection, None)

    def _cut_one(self, among: "list[Connection]") -> None:
        waiting = [each for each in among if each.since is not None]
        chosen = min(waiting, key=lambda each: each.since or 0.0) if waiting else among[-1]
        self.remove(chosen)
        chosen.transport.abort()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        for connection in list(self._open):
            if connection.is_late(self.bounds.seconds):
                self.remove(connection)
                connection.transport.abort()
        self._watch = loop.call_later(TICK, self._look, loop) if self._open else None


class Connection(H11Protocol):
    """A connection that says since when it has kept the server waiting.

    uvicorn bounds the time between two requests, but not that of a head: after its first byte it
    waits for ever, and before the first request too.

    Attributes:
        host: what the client's addresses have in common.
        since: when the wait for a request, or for an answer to be read, began; None while a request
            is computed.
        unsent: bytes of answers that the client had not taken then.
    """

    among: Connections
    host: str
    since: float | None
    unsent: int

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        assert isinstance(transport, asyncio.Transport)
        super().connection_made(transport)
        self.host = neighbourhood(self.client[0]) if self.client else ""
        self._wait()
        self.among.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End, whatever was going on."""
        self.among.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; once a head is whole, nothing is waited for."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self.since = None

    def on_response_complete(self) -> None:
        """Begin to wait again, unless the next request is there."""
        super().on_response_complete()
        if self.cycle.response_complete:
            self._wait()

    def is_late(self, seconds: float) -> bool:
        """Say whether the server has waited long enough.

        Args:
            seconds: longest time until the head of a request is there.
        """
        if self.since is None:
            if self.transport.is_closing():  # an answer was broken off, and is not read
                self._wait()
            return False
        if self.loop.time() - self.since < seconds:
            return False
        taken = self.unsent - self.transport.get_write_buffer_size()
        self._wait()
        return taken < seconds * SLOWEST

    def _wait(self) -> None:
        self.since = self.loop.time()
        self.unsent = self.transport.get_write_buffer_size()


def bounded(bounds: Bounds) -> type[Connection]:
    """Make the class of connections of one server.

    Args:
        bounds: what they may take, all together.
    """
    members: dict[str, Any] = {"among": Connections(bounds)}
    return type("BoundedConnection", (Connection,), members)
