"""When Redis counts as unreachable."""

from datetime import timedelta

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from app.caching import Breaker, CacheUnavailable, Trust, open_redis
from app.caching import breaker as breakers


async def test_three_failures_in_a_row_open_the_breaker_and_error_answers_are_no_failures(
    trust: Trust, breaker: Breaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breakers, "FAILING", timedelta(0))
    for _ in range(2):
        breaker.failed(TimeoutError())
    breaker.answered()
    for _ in range(2):
        breaker.failed(TimeoutError())
    for _ in range(9):
        breaker.failed(ResponseError("OOM command not allowed"))
    assert trust.held
    breaker.failed(TimeoutError())
    assert trust.lost
    assert not breaker.reachable


async def test_an_unanswered_ping_opens_the_breaker(trust: Trust, breaker: Breaker, redis: Redis) -> None:
    async with open_redis("unix:///nowhere/redis.sock", timeout=timedelta(seconds=1), connections=1) as nowhere:
        with pytest.raises(CacheUnavailable, match="Redis did not answer: it refuses connections"):
            await breaker.probe(nowhere, nowhere.ping)
    assert trust.lost
    assert not breaker.reachable
    await breaker.probe(redis, redis.ping)
    assert breaker.reachable
    assert trust.lost, "That it answers does not say what it knows."
