"""A network in front of Postgres that delays what passes, in either direction.

    the lab  →  Wire, +latency/2  →  Postgres        and back the same way

The embedded Postgres answers over a unix socket in some 100 µs, and a database across a data centre in some ms. The
value of a cache depends on that. The bytes are delayed, so that each round trip costs it, whatever the statement.

What can go wrong: the wire passes TLS through untouched, so a client that checks the server's name refuses it.
"""

import asyncio
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast
from urllib.parse import quote, urlsplit

from app.database_url import DatabaseUrl

SOCKET, PORT = ".s.PGSQL.{}", 5432
CROWD = 256
LEADS_ELSEWHERE = ("host", "hostaddr", "port")

Latency = Callable[[], float]
"""The delay of the next bytes in one direction, in seconds."""


@asynccontextmanager
async def wire(
    database_url: str,
    latency: Latency,
    *,
    back: Latency | None = None,
    hear: Callable[[bytes], object] = lambda data: None,
) -> AsyncIterator[str]:
    """Yields an address that leads through a wire to the Postgres at `database_url` (one host, or a directory of a unix
    socket).

    `latency` is for both directions, or only for the one to Postgres when `back` is given. `hear` is called with what a
    client sends, before it is passed on. Raises ValueError when the address names several hosts.
    """
    place, *others = DatabaseUrl.read(database_url).places
    if others:
        raise ValueError("A wire leads to one Postgres, and DATABASE_URL names several hosts.")
    host, port = place.host, place.port
    ends: set[_End] = set()

    async def connected(client: _End) -> None:
        loop = asyncio.get_running_loop()
        server = _End(back or latency, ends)
        server.other, client.other = client, server
        try:
            if host.startswith("/"):
                await loop.create_unix_connection(lambda: server, str(Path(host) / SOCKET.format(port)))
            else:
                await loop.create_connection(lambda: server, host, port)
        except OSError:
            client.close()  # To the client this looks like a Postgres that is away.
        else:
            client.ready()

    def accepted() -> _End:
        return _End(latency, ends, connected, hear)

    with tempfile.TemporaryDirectory(prefix="fourways-wire-") as directory:
        path = Path(directory) / SOCKET.format(PORT)
        server = await asyncio.get_running_loop().create_unix_server(accepted, path, backlog=CROWD)
        try:
            parts = urlsplit(database_url)
            login, at, _host = parts.netloc.rpartition("@")
            kept = [pair for pair in parts.query.split("&") if pair.partition("=")[0] not in ("", *LEADS_ELSEWHERE)]
            through = "&".join([*kept, f"host={quote(directory)}", f"port={PORT}"])
            yield f"{parts.scheme}://{login}{at}{parts.path}?{through}"
        finally:
            server.close()
            for end in list(ends):
                end.close()
            await asyncio.gather(*(end.task for end in list(ends) if end.task), return_exceptions=True)


class _End(asyncio.Protocol):
    """One end of a connection. What it receives, the `other` one sends later, in the same order."""

    def __init__(
        self,
        latency: Latency,
        ends: set["_End"],
        connect: Callable[["_End"], Coroutine[None, None, None]] | None = None,
        hear: Callable[[bytes], object] = lambda data: None,
    ) -> None:
        """`connect` opens the way to Postgres for a client's end, and `hear` is called with what that client sends."""
        self.other: _End | None = None
        self.task: asyncio.Task[None] | None = None
        self._latency, self._ends, self._connect, self._hear = latency, ends, connect, hear
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] | None = []
        self._under_way: deque[bytes | None] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._ends.add(self)
        if self._connect is None:
            self._early = None
        else:  # Not earlier: when Postgres is away, there must be a transport to close.
            self.task = asyncio.get_running_loop().create_task(self._connect(self))

    def ready(self) -> None:
        """Sends what came before the way to Postgres was open."""
        early, self._early = self._early or [], None
        for data in early:
            self.data_received(data)

    def data_received(self, data: bytes) -> None:
        if self._early is not None:
            self._early.append(data)
        else:
            self._hear(data)
            self._send(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._ends.discard(self)
        self._send(None)

    def close(self) -> None:
        """Closes the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _send(self, data: bytes | None) -> None:
        # Each arrival has its own timer, and each timer takes the oldest data: bytes never overtake each other, however
        # late some are.
        self._under_way.append(data)
        asyncio.get_running_loop().call_later(self._latency(), self._arrive)

    def _arrive(self) -> None:
        data = self._under_way.popleft()
        if self.other is None or self.other._transport is None or self.other._transport.is_closing():
            return
        if data is None:
            self.other._transport.close()
        else:
            self.other._transport.write(data)
