"""A network in front of Postgres: what passes, in either direction, arrives later than it came.

    the lab  →  Wire, +latency/2  →  Postgres        and back the same way

The embedded Postgres answers over a unix socket in some 100 µs, and a database across a data centre in some ms. What a
cache is worth depends on that. The delay is put on the bytes, so that each round trip costs it, whatever is asked.

What can go wrong: the wire passes TLS through untouched, so a client that checks the server's name will not like it.
"""

import asyncio
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

SOCKET, PORT = ".s.PGSQL.{}", 5432
CROWD = 256

Latency = Callable[[], float]
"""How many seconds the next bytes are on their way, in one direction."""


@asynccontextmanager
async def wire(
    database_url: str,
    latency: Latency,
    *,
    back: Latency | None = None,
    hear: Callable[[bytes], object] = lambda data: None,
) -> AsyncIterator[str]:
    """The address of the Postgres at `database_url` (one host, or a directory of a unix socket), through a wire.

    `latency` is of both directions, or only of the one to Postgres where `back` is given. `hear` is told what a client
    says, before it sets out. Raises ValueError when the address names several hosts.
    """
    parts = urlsplit(database_url)
    if "," in parts.netloc:
        raise ValueError("A wire leads to one Postgres, and DATABASE_URL names several hosts.")
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    host = parts.hostname or query.pop("host", "localhost")
    port = parts.port or int(query.pop("port", PORT))
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
            client.close()  # The client learns it as from a Postgres that is away.
        else:
            client.ready()

    def accepted() -> _End:
        return _End(latency, ends, connected, hear)

    with tempfile.TemporaryDirectory(prefix="fourways-wire-") as directory:
        path = Path(directory) / SOCKET.format(PORT)
        server = await asyncio.get_running_loop().create_unix_server(accepted, path, backlog=CROWD)
        try:
            login, at, _host = parts.netloc.rpartition("@")
            through = urlencode({**query, "host": directory}, safe="/")
            yield urlunsplit(parts._replace(netloc=login + at, query=through))
        finally:
            server.close()
            for end in list(ends):
                end.close()
            await asyncio.gather(*(end.task for end in list(ends) if end.task), return_exceptions=True)


class _End(asyncio.Protocol):
    """One end of a connection. What it hears, it has the `other` one say later, in the same order."""

    def __init__(
        self,
        latency: Latency,
        ends: set["_End"],
        connect: Callable[["_End"], Coroutine[None, None, None]] | None = None,
        hear: Callable[[bytes], object] = lambda data: None,
    ) -> None:
        """`connect` makes the way to Postgres for the end of a client, and `hear` is told what that one says."""
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
        else:  # Not earlier: when Postgres is away, there must be something to hang up.
            self.task = asyncio.get_running_loop().create_task(self._connect(self))

    def ready(self) -> None:
        """The way is open: what came before sets out now."""
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
        """Hangs up."""
        if self._transport is not None:
            self._transport.abort()

    def _send(self, data: bytes | None) -> None:
        # One timer for each arrival, and each takes the oldest: bytes never overtake each other, however late some are.
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
