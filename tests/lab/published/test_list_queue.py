"""The list as a queue, as published and repaired."""

import asyncio

import pytest

from app.lab.published import ListQueue, MovedListQueue
from tests.lab.published.conftest import Arguments
from tests.lab.published.numbers import Numbers

published_and_repaired = pytest.mark.parametrize(("make", "right"), [(ListQueue, False), (MovedListQueue, True)])


async def drain(queue: ListQueue | MovedListQueue) -> None:
    """Flushes until nothing is left."""
    while await queue.flush():
        continue


@published_and_repaired
async def test_a_dying_flusher_loses_its_batch_as_published_and_keeps_it_as_repaired(
    arguments: Arguments, make: type[ListQueue] | type[MovedListQueue], right: bool
) -> None:
    """F LPOPs 1, and dies before COMMIT · another one finds nothing"""
    numbers: Numbers = arguments[1]
    await make(*arguments).write("k", 1)
    with numbers.held_before() as gate:
        dying = asyncio.create_task(make(*arguments).flush())
        await gate.reached.wait()
        dying.cancel()
        await asyncio.wait({dying})
    await drain(make(*arguments))
    assert await numbers.value() == (1 if right else 0)
    assert await make(*arguments).read("k") == 1


@published_and_repaired
async def test_a_retry_comes_after_newer_writes_as_published_and_before_them_as_repaired(
    arguments: Arguments, make: type[ListQueue] | type[MovedListQueue], right: bool
) -> None:
    """F LPOPs 1, and the database is away · W RPUSHes 2 · F RPUSHes 1 again"""
    numbers: Numbers = arguments[1]
    queue = make(*arguments)
    await queue.write("k", 1)
    with numbers.held_before() as gate:
        flushing = asyncio.create_task(queue.flush())
        await gate.reached.wait()
        await queue.write("k", 2)
        numbers.failures = 1
    await asyncio.wait({flushing})
    assert isinstance(flushing.exception(), ConnectionError if right else type(None))
    await drain(queue)
    assert await numbers.value() == (2 if right else 1)


@published_and_repaired
async def test_a_slow_reader_restores_an_old_value_as_published_and_not_as_repaired(
    arguments: Arguments, make: type[ListQueue] | type[MovedListQueue], right: bool
) -> None:
    """R SELECTs 0, and stalls · W writes 1, and is acknowledged · R SETEXes 0"""
    with arguments[1].held_behind() as gate:
        reading = asyncio.create_task(make(*arguments).read("k"))
        await gate.reached.wait()
        await make(*arguments).write("k", 1)
    assert await reading == 0
    assert await make(*arguments).read("k") == (1 if right else 0)


async def test_a_write_that_fails_four_times_becomes_a_dead_letter(arguments: Arguments) -> None:
    redis, numbers = arguments[0], arguments[1]
    queue = ListQueue(*arguments)
    await queue.write("k", 1)
    numbers.failures = 4
    await drain(queue)
    assert (await redis.llen("lab:queue"), await redis.llen("lab:dead-letter")) == (0, 1)
    assert await numbers.value() == 0


@pytest.mark.parametrize("make", [ListQueue, MovedListQueue])
async def test_a_batch_has_at_most_100_writes(
    arguments: Arguments, make: type[ListQueue] | type[MovedListQueue]
) -> None:
    queue = make(*arguments)
    for value in range(1, 151):
        await queue.write("k", value)
    assert [await queue.flush() for _ in range(3)] == [100, 50, 0]
    assert await arguments[1].value() == 150
