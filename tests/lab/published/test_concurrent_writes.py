"""Two concurrent writes, with the catch and without."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from app.lab.published import ConcurrentWrites, ConcurrentWritesCaught
from tests.eventually import eventually
from tests.lab.published.conftest import Arguments

both = pytest.mark.parametrize("make", [ConcurrentWrites, ConcurrentWritesCaught])
Make = Callable[..., ConcurrentWrites | ConcurrentWritesCaught]


async def stands(redis: Redis, value: bytes) -> None:
    """Returns when the cache has this value."""

    async def does() -> bool:
        return bool(await redis.get("lab:k") == value)

    await eventually(does)


@both
async def test_a_reader_gets_an_uncommitted_value(arguments: Arguments, make: Make) -> None:
    """W SETEXes 1, and its UPDATE is in flight · R reads 1"""
    redis, numbers = arguments[0], arguments[1]
    with numbers.held_before() as gate:
        writing = asyncio.create_task(make(*arguments).write("k", 1))
        await gate.reached.wait()
        await stands(redis, b"1")
        assert (await make(*arguments).read("k"), await numbers.value()) == (1, 0)
    await writing


@both
async def test_a_failing_database_leaves_an_uncommitted_value_in_the_cache(arguments: Arguments, make: Make) -> None:
    redis, numbers = arguments[0], arguments[1]
    with numbers.held_before() as gate:
        writing = asyncio.create_task(make(*arguments).write("k", 1))
        await gate.reached.wait()
        await stands(redis, b"1")
        numbers.failures = 1
    with pytest.raises(ConnectionError):
        await writing
    assert (await make(*arguments).read("k"), await numbers.value()) == (1, 0)


@both
async def test_two_writers_leave_different_values_in_the_two_stores(arguments: Arguments, make: Make) -> None:
    """V SETEXes 1 · W SETEXes 2, UPDATEs to 2 · V UPDATEs to 1"""
    redis, numbers = arguments[0], arguments[1]
    with numbers.held_before() as gate:
        slow = asyncio.create_task(make(*arguments).write("k", 1))
        await gate.reached.wait()
        await stands(redis, b"1")
        await make(*arguments).write("k", 2)
    await slow
    assert (await make(*arguments).read("k"), await numbers.value()) == (2, 1)


class FailingSets(Redis):
    """A client whose SET fails."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Executes a command as any client does, unless it is a SET."""
        if args[0] == "SET":
            raise RedisConnectionError("Redis is away.")
        return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


async def test_the_catch_turns_a_failed_cache_write_into_an_invalidation(arguments: Arguments) -> None:
    redis, numbers, prefix, ttl = arguments
    assert await ConcurrentWritesCaught(*arguments).read("k") == 0
    failing = FailingSets(connection_pool=redis.connection_pool)
    await ConcurrentWritesCaught(failing, numbers, prefix, ttl).write("k", 1)
    assert await ConcurrentWritesCaught(*arguments).read("k") == 1
