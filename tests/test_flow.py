"""Pausing and resuming reads, on a real socket."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from app.flow import Flow
from tests.eventually import eventually


class Heard(asyncio.Protocol):
    """Collects the received bytes."""

    def __init__(self) -> None:
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data


@pytest.fixture
async def line() -> AsyncIterator[tuple[Heard, asyncio.Transport, socket.socket]]:
    """The protocol, its transport, and the socket at the other end."""
    ours, theirs = socket.socketpair()
    transport, heard = await asyncio.get_running_loop().connect_accepted_socket(Heard, ours)
    yield heard, transport, theirs
    transport.abort()
    theirs.close()


async def test_nothing_is_read_while_bytes_are_held(
    line: tuple[Heard, asyncio.Transport, socket.socket],
) -> None:
    """Bytes are held, and reading is paused · one application asks for its body, another one ends: nothing is read ·
    the bytes are released: reading resumes"""
    heard, transport, theirs = line
    flow = Flow(transport)
    flow.pause_reading()
    flow.holds = True
    theirs.send(b"later")
    for _ in range(3):
        flow.resume_reading()
        assert not transport.is_reading()
        await asyncio.sleep(0)  # If reading were on, the loop would read now.
    assert (heard.data, flow.read_paused) == (b"", True)
    flow.holds = False
    flow.resume_reading()

    async def has_come() -> bool:
        return heard.data == b"later"

    await eventually(has_come)


async def test_reading_resumes_on_request_when_no_bytes_are_held(
    line: tuple[Heard, asyncio.Transport, socket.socket],
) -> None:
    _heard, transport, _theirs = line
    flow = Flow(transport)
    flow.pause_reading()
    assert not transport.is_reading()
    flow.resume_reading()
    assert transport.is_reading()
