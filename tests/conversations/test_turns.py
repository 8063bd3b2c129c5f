"""How much is read in one turn of the event loop: no client's bytes make another client wait."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from app.connections import Connections
from app.http_connection import SLICE, HttpConnection
from app.settings import Settings
from app.turns import AT_ONCE
from tests.conversations.conversation import asks, in_chunks
from tests.eventually import PATIENCE

CLIENTS = 6
SENT = {
    "pipeline": (asks() * 300, 300),
    "chunks": (in_chunks("/", *[b"x"] * 20_000), 1),
    "blank lines": (b"\r\n" * 40_000 + asks(), 1),
    "blank body": (asks(method="POST", body=b"\r\n\r\n" * 20_000), 1),
    "bodies": (asks(method="POST", body=b"x" * 50_000) * 5, 5),
}
"""The bytes that each client sends at once, and the number of its answers."""


BODY = asks(method="POST", body=b"x" * 60_000)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the whole body, and answers its size."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message["body"]), message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"%5d" % size})


@dataclass(slots=True)
class Work:
    """Counters by the number of the turn."""

    turn: int = 0
    read_on: Counter[int] = field(default_factory=Counter)
    """Number of connections that continued reading in each turn."""
    rushed: int = 0
    """Number of bytes that should have waited, because too much arrived at once, but did not."""
    parsed: Counter[tuple[int, object]] = field(default_factory=Counter)
    """Number of bytes that each connection parsed in each turn."""
    all: dict[HttpConnection, None] = field(default_factory=dict)
    """All connections, in order."""


@asynccontextmanager
async def counted(settings: Settings, application: ASGIApp = application) -> AsyncIterator[tuple[int, Work]]:
    """Yields the port of a server in this loop, and its counters."""
    work, among, state, loop = Work(), Connections(settings), ServerState(), asyncio.get_running_loop()
    config = uvicorn.Config(application, log_config=None, proxy_headers=False)
    config.load()

    class Counted(HttpConnection):
        def read_on(self) -> None:
            work.read_on[work.turn] += 1
            super().read_on()

        def data_received(self, data: bytes) -> None:
            before = work.parsed.total()
            super().data_received(data)
            if len(data) > AT_ONCE:
                work.rushed += work.parsed.total() - before

        def _parse(self, data: bytes) -> None:
            work.all[self] = None
            work.parsed[work.turn, self] += len(data)
            super()._parse(data)

    async def turns() -> None:
        while True:
            await asyncio.sleep(0)
            work.turn += 1

    turning = asyncio.create_task(turns())
    server = await loop.create_server(
        lambda: Counted(among, config=config, server_state=state, app_state={}), "127.0.0.1"
    )
    try:
        yield server.sockets[0].getsockname()[1], work
    finally:
        turning.cancel()
        server.close()


@pytest.mark.parametrize(("sent", "count"), SENT.values(), ids=SENT)
async def test_in_one_turn_only_one_connection_continues_reading_and_none_reads_much(
    settings: Settings, sent: bytes, count: int
) -> None:
    """Six clients send everything at once · in each turn, one of them advances by a bounded amount"""
    async with counted(settings) as (port, work):

        async def answered() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            writer.write_eof()
            answers = await reader.read()
            writer.close()
            return answers

        async with asyncio.timeout(PATIENCE):
            answers = await asyncio.gather(*(answered() for _ in range(CLIENTS)))
    assert len(set(answers)) == 1
    assert answers[0].count(b"HTTP/1.1 200 OK") == count
    assert (set(work.read_on.values()), work.rushed) == ({1}, 0)
    # Twice, because new bytes may arrive in the turn in which the last held bytes are read.
    assert max(work.parsed.values()) <= 2 * (AT_ONCE + SLICE)


async def by_turns(holds: Callable[[], bool]) -> None:
    """Waits for the first turn in which the condition holds."""
    async with asyncio.timeout(PATIENCE):
        for _ in itertools.count():
            if holds():
                return
            await asyncio.sleep(0)


async def is_waiting(work: Work) -> HttpConnection:
    """Waits until a connection holds bytes, and returns the first connection."""
    await by_turns(lambda: any(one._held for one in work.all))
    return next(iter(work.all))


async def test_a_received_request_that_waits_for_its_turn_is_answered_at_shutdown(settings: Settings) -> None:
    """A body has arrived, and a part of it is read · the service stops · the rest is read, and the request answered"""
    async with counted(settings) as (port, work):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(BODY)
        await writer.drain()
        await asyncio.sleep(0)
        (await is_waiting(work)).shutdown()
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close\r\n" in answer
    assert answer.endswith(b"60000")


async def test_reading_pauses_while_the_application_does_not_take_the_body(settings: Settings) -> None:
    """The application does not read the body yet · the client sends 8 MiB"""
    taken = asyncio.Event()

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await taken.wait()
        await application(scope, receive, send)

    async with counted(settings, late) as (port, work):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(asks(method="POST", body=b"x" * 2**23))
        one = await is_waiting(work)
        await by_turns(lambda: not (one._held or one.transport.is_reading()))
        read = sum(work.parsed.values())
        for _ in range(100):
            await asyncio.sleep(0)
        assert sum(work.parsed.values()) == read < 2**20
        taken.set()
        assert b"200 OK" in await asyncio.wait_for(reader.readline(), PATIENCE)
        writer.close()


async def test_a_connection_that_is_lost_while_it_waits_is_forgotten(settings: Settings) -> None:
    """A body has arrived, and a part of it is read · the client disconnects · its connection's turn would come"""
    failed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, what: failed.append(what))
    async with counted(settings) as (port, work):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(BODY)
        await writer.drain()
        one = await is_waiting(work)
        one.transport.abort()
        one.shutdown()  # This must not wait for the lost client either.
        await by_turns(lambda: one.parser is None)
        read = sum(work.parsed.values())
        for _ in range(20):
            await asyncio.sleep(0)
        assert sum(work.parsed.values()) == read
        writer.close()
    asyncio.get_running_loop().set_exception_handler(None)
    assert failed == []
