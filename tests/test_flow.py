"""Reading that has to wait, on a real socket."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from app.flow import Flow
from tests.eventually import eventually


class Heard(asyncio.Protocol):
    """What has come."""

    def __init__(self) -> None:
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data


@pytest.fixture
async def line() -> AsyncIterator[tuple[Heard, asyncio.Transport, socket.socket]]:
    """What is heard, the transport of it, and the other end."""
    ours, theirs = socket.socketpair()
    transport, heard = await asyncio.get_running_loop().connect_accepted_socket(Heard, ours)
    yield heard, transport, theirs
    transport.abort()
    theirs.close()


async def test_nothing_is_read_while_bytes_are_held_whoever_asks_for_it(
    line: tuple[Heard, asyncio.Transport, socket.socket],
) -> None:
    """Bytes are held, and reading is paused · an application asks for its body, another one ends · they are let go"""
    heard, transport, theirs = line
    flow = Flow(transport)
    flow.pause_reading()
    flow.holds = True
    theirs.send(b"later")
    for _ in range(3):
        flow.resume_reading()
        assert not transport.is_reading()
        await asyncio.sleep(0)  # A loop that read would do so now.
    assert (heard.data, flow.read_paused) == (b"", True)
    flow.holds = False
    flow.resume_reading()

    async def has_come() -> bool:
        return heard.data == b"later"

    await eventually(has_come)


async def test_without_held_bytes_reading_goes_on_when_it_is_asked_for(
    line: tuple[Heard, asyncio.Transport, socket.socket],
) -> None:
    _heard, transport, _theirs = line
    flow = Flow(transport)
    flow.pause_reading()
    assert not transport.is_reading()
    flow.resume_reading()
    assert transport.is_reading()
