"""All writes of one tick leave in one write, in order, and no byte is left behind."""

import asyncio
import socket
from typing import cast

import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from app.speed.one_write import LARGEST, Joined
from tests.eventually import PATIENCE, eventually


class Line:
    """A transport that records its calls."""

    def __init__(self) -> None:
        self.done: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.done.append(data)

    def close(self) -> None:
        self.done.append("closed")

    def is_closing(self) -> bool:
        return "closed" in self.done

    def get_extra_info(self, name: str) -> str:
        return f"its {name}"


def joined(line: Line) -> Joined:
    """Returns a joining transport in front of it."""
    return Joined(cast("asyncio.Transport", line))


async def test_the_writes_of_a_tick_leave_together() -> None:
    line = Line()
    transport = joined(line)
    transport.write(b"head ")
    transport.write(b"body")
    assert line.done == []
    await asyncio.sleep(0)
    assert line.done == [b"head body"]


async def test_nothing_is_held_longer_than_a_tick() -> None:
    """The head leaves before a body that comes late, or, for HEAD, never."""
    line = Line()
    transport = joined(line)
    transport.write(b"head")
    await asyncio.sleep(0)
    transport.write(b"body")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert line.done == [b"head", b"body"]


async def test_held_bytes_leave_before_the_connection_closes() -> None:
    line = Line()
    transport = joined(line)
    transport.write(b"last")
    transport.close()
    await asyncio.sleep(0)
    assert line.done == [b"last", "closed"]


async def test_nothing_is_written_to_a_closed_connection() -> None:
    line = Line()
    transport = joined(line)
    transport.write(b"late")
    line.close()
    await asyncio.sleep(0)
    assert line.done == ["closed"]


async def test_everything_else_is_delegated_to_the_transport() -> None:
    assert joined(Line()).get_extra_info("peername") == "its peername"


async def test_a_large_write_does_not_wait() -> None:
    """Otherwise a whole stream would be held in memory, however slowly the client reads."""
    line = Line()
    transport = joined(line)
    transport.write(b"head ")
    transport.write(b"x" * LARGEST)
    assert line.done == [b"head " + b"x" * LARGEST]
    transport.write(b"end")
    assert len(line.done) == 1
    await asyncio.sleep(0)
    assert line.done[1:] == [b"end"]


@pytest.mark.parametrize("size", [5, 3_000_000])
async def test_a_half_closing_client_is_answered(size: int) -> None:
    """The answer is written, and held · the server reads the client's half-close, and uvicorn's transport closes itself

    `nc -N` and some probes half-close like this.
    """
    config = uvicorn.Config(
        PlainTextResponse("x" * size), port=0, http="app.speed.one_write:OneWrite", log_level="error", lifespan="off"
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())

    async def is_up() -> bool:
        return server.started

    await eventually(is_up)
    port = server.servers[0].sockets[0].getsockname()[1]
    for _ in range(10):
        client = socket.create_connection(("127.0.0.1", port))
        # Both have arrived before the server's loop polls.
        client.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        reader, writer = await asyncio.open_connection(sock=client)
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()
        await writer.wait_closed()
        assert answer.partition(b"\r\n\r\n")[2] == b"x" * size
    server.should_exit = True
    await serving
