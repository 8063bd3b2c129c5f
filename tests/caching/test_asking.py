"""Which answers of Redis count."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from app.caching import CacheUnavailable, Region, Trust, moment
from app.caching.lease import Lease
from tests.caching.conftest import Thing

OLD = Thing(name="old", version=1)


async def test_an_answer_to_a_command_sent_before_trust_was_lost_is_not_believed(
    region: Region[int, Thing], trust: Trust, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R asks on a connection to the Redis that has restarted · another connection detects it · R's answer arrives"""
    lease = await region.lookup(1)
    assert isinstance(lease, Lease)
    await region.fill(1, lease.token, OLD)
    asked, answer = asyncio.Event(), asyncio.Event()
    ask: Callable[..., Awaitable[object]] = redis.execute_command

    async def slow(*words: str) -> object:
        raw = await ask(*words)
        asked.set()
        await answer.wait()
        return raw

    monkeypatch.setattr(redis, "execute_command", slow)
    reader = asyncio.ensure_future(region.find(1))
    await asked.wait()
    trust.lose("it has restarted")
    trust.grant(trust.losses, moment.NEVER)
    answer.set()
    with pytest.raises(CacheUnavailable, match="Redis is not believed for things: it has restarted"):
        await reader
