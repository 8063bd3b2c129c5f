"""A proxy in front of Postgres that sees each statement pass, counts it, and can hold it back.

    application  →  PostgresWire  →  Postgres

It reads the messages of protocol 3 that a client sends: a Parse names a statement, a Bind makes a portal of it, an
Execute runs the portal; a simple Query is all in one. What Postgres answers is passed on unread.
"""

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit, urlunsplit

from tests.faults.held import Held

SOCKET = ".s.PGSQL.5432"
NEGOTIATIONS = {80877103, 80877104}
"""The numbers by which a client asks for TLS or GSS before it introduces itself."""


class PostgresWire:
    """An async context manager; `url` leads through it to the Postgres at `database_url`, a unix socket."""

    def __init__(self, database_url: str) -> None:
        self._upstream = Path(parse_qs(urlsplit(database_url).query)["host"][0]) / SOCKET
        self._parts = urlsplit(database_url)
        self._executed: list[str] = []
        self._gates: list[Held] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        directory = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="wire-"))
        self.url = urlunsplit(self._parts._replace(query=f"host={directory}"))
        self._server = await asyncio.start_unix_server(self._connected, Path(directory) / SOCKET)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._stack.aclose()

    def count(self, pattern: str) -> int:
        """How many executed statements matched so far."""
        return sum(1 for statement in self._executed if re.search(pattern, statement, re.DOTALL))

    @asynccontextmanager
    async def holding(self, pattern: str) -> AsyncIterator[Held]:
        """Holds the statements that match until they are released, or the block ends."""
        held = Held(pattern)
        self._gates.append(held)
        try:
            yield held
        finally:
            self._gates.remove(held)
            held.release()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        server_reader, server_writer = await asyncio.open_unix_connection(self._upstream)
        back = asyncio.create_task(_copy(server_reader, writer))
        try:
            await self._forward(reader, server_writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            back.cancel()  # Either side is gone, or the test is over: so is the connection.
        finally:
            server_writer.close()
            await asyncio.wait({back})
            writer.close()
            self._connections.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        negotiating = True
        while negotiating:
            body = await _body(reader)
            writer.write(_length(body) + body)
            negotiating = int.from_bytes(body[:4]) in NEGOTIATIONS
        statements: dict[bytes, str] = {}
        portals: dict[bytes, str] = {}
        while True:
            kind, body = await reader.readexactly(1), await _body(reader)
            first, _, rest = body.partition(b"\0")
            if kind == b"P":
                statements[first] = rest.partition(b"\0")[0].decode()
            elif kind == b"B":
                # Held here and not at the Execute: Postgres takes the snapshot of a SELECT when it is bound.
                portals[first] = statements[rest.partition(b"\0")[0]]
                await self._pass(portals[first])
            elif kind == b"Q":
                await self._pass(first.decode())
            if kind in b"EQ":
                self._executed.append(portals[first] if kind == b"E" else first.decode())
            writer.write(kind + _length(body) + body)
            await writer.drain()

    async def _pass(self, statement: str) -> None:
        for gate in list(self._gates):
            await gate.passed(statement)


async def _body(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4)) - 4)


def _length(body: bytes) -> bytes:
    return (len(body) + 4).to_bytes(4)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
        await writer.drain()
    writer.close()
