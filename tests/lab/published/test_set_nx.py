"""The published lock, and what gets past it."""

import asyncio
from datetime import timedelta

from app.lab.published import SetNx
from tests.lab.published.conftest import Arguments

NO_PAUSE = timedelta(0)


async def test_every_reader_loads_when_a_load_takes_longer_than_the_pause(arguments: Arguments) -> None:
    """One reader has the lock, and loads · all others wait once, find nothing, and load, too"""
    numbers = arguments[1]
    with numbers.held_behind() as gate:
        first = asyncio.create_task(SetNx(*arguments).read("k"))
        await gate.reached.wait()
        herd = [SetNx(*arguments, pause=NO_PAUSE) for _ in range(20)]
        # A value that arrives while they load would spare the last of them. So they come one after another, and what
        # each leaves is removed.
        for reader in herd:
            await reader.read("k")
            await arguments[0].delete("lab:k")
            await arguments[0].set("lab:lock:k", 1)
    await first
    assert numbers.loads == 21


async def test_a_reader_that_falls_through_deletes_another_readers_lock(arguments: Arguments) -> None:
    redis, numbers = arguments[0], arguments[1]
    with numbers.held_behind() as gate:
        holder = asyncio.create_task(SetNx(*arguments).read("k"))
        await gate.reached.wait()
        assert await redis.exists("lab:lock:k")
        await SetNx(*arguments, pause=NO_PAUSE).read("k")
        assert not await redis.exists("lab:lock:k")
    await holder


async def test_the_lock_of_a_dead_holder_never_expires(arguments: Arguments) -> None:
    redis, numbers = arguments[0], arguments[1]
    await redis.set("lab:lock:k", "1", nx=True)
    assert await redis.pttl("lab:lock:k") == -1
    assert await SetNx(*arguments, pause=NO_PAUSE).read("k") == 0
    assert numbers.loads == 1


async def test_the_lock_does_not_fence_the_fill(arguments: Arguments) -> None:
    """R has the lock, SELECTs 0, and stalls · W UPDATEs to 1, DELs the value · R SETEXes 0"""
    reader, writer, numbers = SetNx(*arguments), SetNx(*arguments), arguments[1]
    with numbers.held_behind() as gate:
        reading = asyncio.create_task(reader.read("k"))
        await gate.reached.wait()
        await writer.write("k", 1)
    await reading
    assert (await writer.read("k"), await numbers.value()) == (0, 1)
