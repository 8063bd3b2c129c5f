"""What is written in one tick leaves in one write, in its order, and nothing is left behind."""

import asyncio
import socket
from typing import cast

import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from app.speed.one_write import LARGEST, Joined
from tests.eventually import PATIENCE, eventually


class Line:
    """Notes what a transport is told to do."""

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
    """A joining transport before it."""
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
    """A head whose body takes its time, as that of HEAD for ever."""
    line = Line()
    transport = joined(line)
    transport.write(b"head")
    await asyncio.sleep(0)
    transport.write(b"body")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert line.done == [b"head", b"body"]


async def test_what_is_held_leaves_before_the_connection_closes() -> None:
    line = Line()
    transport = joined(line)
    transport.write(b"last")
    transport.close()
    await asyncio.sleep(0)
    assert line.done == [b"last", "closed"]


async def test_a_connection_that_is_gone_gets_nothing() -> None:
    line = Line()
    transport = joined(line)
    transport.write(b"late")
    line.close()
    await asyncio.sleep(0)
    assert line.done == ["closed"]


async def test_all_else_is_the_transport_s() -> None:
    assert joined(Line()).get_extra_info("peername") == "its peername"


async def test_what_is_much_does_not_wait() -> None:
    """Else a stream would be held as a whole, whatever the client takes."""
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
async def test_whoever_has_said_all_is_answered(size: int) -> None:
    """The answer is written, and held · the client's end is read, and uvicorn's transport closes itself

    As `nc -N` does, and some probes.
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
        # Both are there before the server's loop looks.
        client.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        reader, writer = await asyncio.open_connection(sock=client)
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()
        await writer.wait_closed()
        assert answer.partition(b"\r\n\r\n")[2] == b"x" * size
    server.should_exit = True
    await serving
