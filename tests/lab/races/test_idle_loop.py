"""A loop that knows when nothing moves."""

import asyncio
import socket

from app.lab.races.idle_loop import IdleLoop


async def _polls(times: int) -> list[float]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, IdleLoop)
    loop.stop_time()
    began, woken = loop.time(), []

    async def poll() -> None:
        for _time in range(times):
            await asyncio.sleep(3600)
            woken.append(loop.time() - began)

    polling = asyncio.create_task(poll())
    while (due := await loop.idle(lambda: False)) is not None:
        assert not polling.done()
        loop.advance(due)
    loop.start_time()
    await polling
    return woken


def test_time_passes_only_on_command_and_in_the_order_of_the_timers() -> None:
    with asyncio.Runner(loop_factory=IdleLoop) as runner:
        woken = runner.run(_polls(3))
    assert [round(each) for each in woken] == [3600, 7200, 10800]


async def _waits_for_a_socket() -> list[bytes]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, IdleLoop)
    here, there = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=here)
    told: list[bytes] = []

    async def read() -> None:
        told.append(await reader.readline())

    reading = asyncio.create_task(read())
    # Another thread answers, and no callback of this loop knows of it.
    writing = loop.run_in_executor(None, there.sendall, b"answered\n")
    await loop.idle(lambda: not told)
    found = list(told)
    await asyncio.gather(reading, writing)
    writer.close()
    await writer.wait_closed()
    there.close()
    return found


def test_it_is_not_idle_while_it_is_declared_busy() -> None:
    with asyncio.Runner(loop_factory=IdleLoop) as runner:
        assert runner.run(_waits_for_a_socket()) == [b"answered\n"]
