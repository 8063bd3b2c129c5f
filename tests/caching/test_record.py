"""The record in Redis may hold anything: others can write there, too."""

from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import TimeoutError as RedisTimeout

from app.caching import Owner, Record, RedisClock


@pytest.mark.parametrize("rot", ["far", "1.5", "-1", "9" * 5000])
async def test_a_corrupt_position_is_replaced_and_locks_nobody_out(redis: Redis, clock: RedisClock, rot: str) -> None:
    record = Record(redis, "epoch", clock)
    assert await record.tell("first", Owner("shop", "1/1", 5), None)
    await redis.hset("epoch", "position", rot)
    seen = await record.beat("first", 7)
    assert (seen.epoch, seen.owner, seen.went_back) == ("first", Owner("shop", "1/1", 0), False)
    assert (await record.beat("another", 0)).epoch == "first"
    assert (await record.beat("first", 7)).owner == Owner("shop", "1/1", 7)


async def test_a_beat_that_redis_executes_late_is_no_sign_that_redis_went_back(
    redis: Redis, clock: RedisClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A's first beat waits in the buffer of a slow Redis, and A times out
                                        A's second beat comes on another connection, and is executed
    Redis executes the first one, too: the record now has an older beat than A's last one
    """
    record = Record(redis, "epoch", clock)
    assert await record.tell("first", Owner("shop", "1/1", 5), None)
    beat, given_up = record._beat, list[tuple[Any, Any]]()

    async def slow(keys: Any, args: Any) -> Any:
        given_up.append((keys, args))
        raise RedisTimeout("Timeout reading from the socket")

    monkeypatch.setattr(record, "_beat", slow)
    with pytest.raises(RedisTimeout):
        await record.beat("first", 5)
    monkeypatch.setattr(record, "_beat", beat)
    assert not (await record.beat("first", 5)).went_back
    ((_keys, args),) = given_up
    await redis.hset("epoch", args[1], args[2])
    assert not (await record.beat("first", 5)).went_back
    await redis.hset("epoch", args[1], "of another time")
    assert (await record.beat("first", 5)).went_back
