"""What stands in the record of a Redis may be anything: others can write there, too."""

import pytest
from redis.asyncio import Redis

from app.caching import Owner, Record, RedisClock


@pytest.mark.parametrize("rot", ["far", "1.5", "-1", "9" * 5000])
async def test_a_position_that_is_none_is_told_anew_and_keeps_nobody_outside(
    redis: Redis, clock: RedisClock, rot: str
) -> None:
    record = Record(redis, "epoch", clock)
    assert await record.tell("first", Owner("shop", "1/1", 5), None)
    await redis.hset("epoch", "position", rot)
    seen = await record.beat("first", 7)
    assert (seen.epoch, seen.owner, seen.went_back) == ("first", Owner("shop", "1/1", 0), False)
    assert (await record.beat("another", 0)).epoch == "first"
    assert (await record.beat("first", 7)).owner == Owner("shop", "1/1", 7)
