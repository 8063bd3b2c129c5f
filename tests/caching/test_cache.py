"""A cache opened from a URL alone, without a relay: it renews trust, and retries failed invalidations."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

import pytest
from pydantic import BaseModel
from redis.asyncio import Redis

from app.caching import (
    Breaker,
    Cache,
    CacheAside,
    CacheUnavailable,
    Identity,
    NotInvalidated,
    Outcome,
    Region,
    Trust,
    cache,
    open_cache,
)
from app.caching.renewal import Renewal
from app.embedded import Endpoints
from tests.caching.conftest import Source, Thing
from tests.eventually import eventually
from tests.faults.another_redis import another_redis
from tests.faults.redis_wire import RedisWire

A_WHILE = timedelta(seconds=5)


@asynccontextmanager
async def things(url: str) -> AsyncIterator[tuple[Cache, CacheAside[int, Thing]]]:
    """Opens a process with a cache of things, as a beginner does."""
    async with open_cache(url, timeout=A_WHILE) as opened, Region[int, Thing](opened, "things", Thing) as region:
        yield opened, CacheAside(region)


async def test_a_cache_needs_nothing_but_a_url(endpoints: Endpoints, redis: Redis, source: Source) -> None:
    source.rows[1] = Thing(name="one", version=1)
    async with things(endpoints.redis_url) as (_, one), things(endpoints.redis_url) as (_, other):
        outcomes = [(await one.get(1, source.get)).outcome for _ in range(3)]
        assert outcomes == [Outcome.MISS, Outcome.HIT, Outcome.HIT]
        source.rows[1] = Thing(name="another", version=2)
        await one.invalidate(1, 2)
        assert (await other.get(1, source.get)).value == source.rows[1]
    assert source.calls == 2


async def test_a_redis_that_was_a_replica_for_a_moment_is_another_one(source: Source) -> None:
    """X becomes a replica of Y                  a value is invalidated on Y, and Y dies before X has heard of it
    X is the primary again, and its connections never broke: R would hit the value of the run that they know.
    (The test puts the value back, as no Y has sent it.)"""
    source.rows[1] = Thing(name="old", version=1)
    async with another_redis() as url, things(url) as (_, one), Redis.from_url(url) as operator:
        await one.get(1, source.get)
        lost = cast("bytes", await operator.get("things:{1}"))
        source.rows[1] = Thing(name="new", version=2)
        await one.invalidate(1, 2)
        moment = operator.pipeline(transaction=False)
        moment.execute_command("REPLICAOF", "127.0.0.1", "1")
        moment.execute_command("REPLICAOF", "NO", "ONE")
        moment.set("things:{1}", lost)
        await moment.execute()

        async def is_new() -> bool:
            return (await one.get(1, source.get)).value == source.rows[1]

        await eventually(is_new)
        assert await is_new()


async def test_a_cache_is_believed_only_while_redis_answers(endpoints: Endpoints, redis: Redis, source: Source) -> None:
    source.rows[1] = Thing(name="one", version=1)
    async with RedisWire(endpoints.redis_url) as wire, things(wire.url) as (opened, one):
        await one.get(1, source.get)
        wire.refuse()
        await eventually(lambda: _is(not opened.trust.held))
        assert (await one.get(1, source.get)).outcome is Outcome.BYPASSED
        wire.heal()
        await eventually(lambda: _is(opened.trust.held))
        assert (await one.get(1, source.get)).outcome is Outcome.HIT


async def test_a_redis_that_starts_late_is_used_once_it_answers(
    endpoints: Endpoints, redis: Redis, source: Source
) -> None:
    source.rows[1] = Thing(name="one", version=1)
    async with RedisWire(endpoints.redis_url) as wire:
        wire.refuse()
        async with things(wire.url) as (opened, one):
            assert (await one.get(1, source.get)).outcome is Outcome.BYPASSED
            wire.heal()
            await eventually(lambda: _is(opened.trust.held))
            assert (await one.get(1, source.get)).outcome is Outcome.MISS


async def test_a_failed_invalidation_raises_and_is_retried(endpoints: Endpoints, redis: Redis, source: Source) -> None:
    """W commits, and cannot reach Redis · W itself does not read the old value · W reaches Redis, and so nobody does"""
    source.rows[1] = Thing(name="old", version=1)
    async with (
        RedisWire(endpoints.redis_url) as wire,
        things(wire.url) as (opened, writer),
        things(endpoints.redis_url) as (_, other),
    ):
        await writer.get(1, source.get)
        source.rows[1] = Thing(name="new", version=2)
        wire.refuse()
        with pytest.raises(NotInvalidated, match="The write of things 1 is committed, so do not repeat it"):
            await writer.invalidate(1, 2)
        value = await writer.get(1, source.get)
        assert (value.value, value.outcome) == (source.rows[1], Outcome.BYPASSED), "It reads what it has written."
        stale = await other.get(1, source.get)
        assert stale.value == Thing(name="old", version=1), "Without a relay, others may read the old value meanwhile."
        wire.heal()
        await eventually(lambda: _is(opened.renewal is not None and not opened.renewal.owed))
        assert (await other.get(1, source.get)).value == source.rows[1]


async def test_redis_is_not_believed_while_an_invalidation_is_owed(
    redis: Redis, trust: Trust, breaker: Breaker
) -> None:
    """A round delivers what was owed to Redis · another invalidation fails · the round ends: it must not trust Redis"""
    renewal, telling, told = Renewal(redis, trust, breaker, Identity(trust)), asyncio.Event(), asyncio.Event()

    async def tell() -> None:
        telling.set()
        await told.wait()

    renewal.owe("things", 1, 2, tell)
    round_ = asyncio.create_task(renewal.renew())
    await telling.wait()
    renewal.owe("things", 2, 2, tell)
    told.set()
    await round_
    assert (renewal.owed, trust.held) == (1, False)
    await renewal.renew()
    assert (renewal.owed, trust.held) == (0, True)


async def test_only_the_newest_version_of_a_key_is_owed(endpoints: Endpoints, redis: Redis) -> None:
    told: list[int] = []

    async with open_cache(endpoints.redis_url, timeout=A_WHILE) as opened:
        renewal = opened.renewal
        assert renewal is not None
        for version in (2, 3, 1):

            async def tell(version: int = version) -> None:
                told.append(version)

            renewal.owe("things", 1, version, tell)
        assert (renewal.owed, opened.trust.held) == (1, False)
        await eventually(lambda: _is(opened.trust.held))
    assert told == [3]


async def test_an_owed_invalidation_that_fails_does_not_hold_up_the_others(
    redis: Redis, trust: Trust, breaker: Breaker
) -> None:
    told: list[int] = []

    async def fails() -> None:
        raise CacheUnavailable("Redis answered with an error.")

    async def tell() -> None:
        told.append(2)

    renewal = Renewal(redis, trust, breaker, Identity(trust))
    renewal.owe("things", 1, 2, fails)
    renewal.owe("things", 2, 2, tell)
    with pytest.raises(CacheUnavailable):
        await renewal.renew()
    assert (told, renewal.owed, trust.held) == ([2], 1, False)


async def test_a_version_that_is_not_a_number_is_refused_and_fails_no_other_invalidation(
    endpoints: Endpoints, redis: Redis, source: Source
) -> None:
    async with things(endpoints.redis_url) as (opened, one):
        bad, good = await asyncio.gather(
            one.invalidate(1, cast("int", "abc")), one.invalidate(2, 2), return_exceptions=True
        )
        assert (str(bad), good) == ("'abc' is not a row version: it must be a whole number from the database.", None)
        assert opened.renewal is not None
        assert (opened.renewal.owed, opened.trust.held) == (0, True)


async def test_owed_invalidations_are_delivered_when_the_cache_closes(
    endpoints: Endpoints, redis: Redis, source: Source
) -> None:
    """An invalidation fails · Redis is back · the cache is closed before its next round"""
    source.rows[1] = Thing(name="old", version=1)
    async with RedisWire(endpoints.redis_url) as wire, things(endpoints.redis_url) as (_, other):
        async with things(wire.url) as (opened, writer):
            await writer.get(1, source.get)
            source.rows[1] = Thing(name="new", version=2)
            assert opened.renewal is not None
            opened.renewal.renew = _never  # type: ignore[method-assign]
            opened.renewal._repeating._work = _never
            wire.refuse()
            with pytest.raises(NotInvalidated):
                await writer.invalidate(1, 2)
            wire.heal()
            del opened.renewal.renew
        assert (await other.get(1, source.get)).value == source.rows[1]


async def _never() -> timedelta:
    """Does nothing: no round comes."""
    return timedelta(milliseconds=1)


async def test_invalidations_still_owed_when_the_cache_closes_are_logged(
    endpoints: Endpoints, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async with RedisWire(endpoints.redis_url) as wire:
        async with things(wire.url) as (_, writer):
            wire.refuse()
            with pytest.raises(NotInvalidated):
                await writer.invalidate(1, 2)
        wire.heal()
    assert "1 keys were not invalidated in Redis" in caplog.text


async def test_a_relayed_cache_without_a_relay_logs_a_warning(
    endpoints: Endpoints, redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cache, "PATIENCE", timedelta(milliseconds=1))
    async with open_cache(endpoints.redis_url, timeout=A_WHILE, relayed=True):
        await eventually(lambda: _is("Is a relay running?" in caplog.text))


async def test_a_region_of_a_relayed_cache_requires_settled(endpoints: Endpoints, redis: Redis) -> None:
    async with open_cache(endpoints.redis_url, timeout=A_WHILE, relayed=True) as opened:
        with pytest.raises(TypeError, match="The cache of things is relayed: name `settled`, or open it without"):
            Region[int, Thing](opened, "things", Thing)


async def test_a_type_that_is_no_model_is_refused(endpoints: Endpoints, redis: Redis) -> None:
    @dataclass(frozen=True)
    class Plain:
        version: int

    async with open_cache(endpoints.redis_url, timeout=A_WHILE) as opened:
        with pytest.raises(TypeError, match="Plain must be a pydantic BaseModel"):
            Region(opened, "things", Plain)  # type: ignore[type-var]


async def test_values_do_not_overwrite_a_stream_of_the_same_name(endpoints: Endpoints, redis: Redis) -> None:
    """Counters of that name are open in another process: what is pending in them may not be lost."""
    name = "things:{1}"
    await redis.xadd(name, {"batch": "pending"})
    async with (
        open_cache(endpoints.redis_url, timeout=A_WHILE) as opened,
        Region[int, Thing](opened, "things", Thing) as region,
    ):
        source = Source()
        source.rows[1] = Thing(name="kettle", version=1)
        for _ in range(2):
            assert (await CacheAside(region).get(1, source.get)).value == source.rows[1]
        await region.invalidate(1, 2)
        await region.revoke(1, "writer-1")
    assert await redis.xlen(name) == 1


async def test_a_type_without_a_version_is_refused(endpoints: Endpoints, redis: Redis) -> None:
    class Plain(BaseModel):
        name: str

    async with open_cache(endpoints.redis_url, timeout=A_WHILE) as opened:
        with pytest.raises(TypeError, match="Plain has no field `version`"):
            Region[int, Plain](opened, "plain", Plain)  # type: ignore[type-var]


async def _is(found: bool) -> bool:
    return found
