"""The stream, and what is never delivered again."""

import asyncio

from app.lab.published import StreamQueue
from tests.lab.published.conftest import Arguments


async def test_messages_read_by_a_dead_flusher_are_never_delivered_again(arguments: Arguments) -> None:
    """F XREADGROUPs 1, and dies · another flusher reads what is new: nothing"""
    redis, numbers = arguments[0], arguments[1]
    await StreamQueue(*arguments).write("k", 1)
    with numbers.held_before() as gate:
        dying = asyncio.create_task(StreamQueue(*arguments).flush())
        await gate.reached.wait()
        dying.cancel()
        await asyncio.wait({dying})
    assert await StreamQueue(*arguments).flush() == 0
    assert await numbers.value() == 0
    assert (await redis.xpending("lab:stream", "db-writer"))["pending"] == 1


async def test_a_message_that_fails_once_is_not_retried(arguments: Arguments) -> None:
    queue, numbers = StreamQueue(*arguments), arguments[1]
    await queue.write("k", 1)
    numbers.failures = 1
    assert [await queue.flush(), await queue.flush()] == [1, 0]
    assert await numbers.value() == 0


async def test_a_writer_does_not_read_its_own_write(arguments: Arguments) -> None:
    queue = StreamQueue(*arguments)
    await queue.read("k")
    await queue.write("k", 1)
    assert await queue.read("k") == 0
    await queue.flush()
    assert await queue.read("k") == 0
