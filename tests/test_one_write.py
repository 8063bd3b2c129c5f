"""What is written in one tick leaves in one write, in its order, and nothing is left behind."""

import asyncio
from typing import cast

from app.one_write import Joined


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
