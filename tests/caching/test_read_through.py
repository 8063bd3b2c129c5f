"""Read-through: the cache loads its values itself."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from app.caching import Cache, Event, Outcome, ReadThrough, Region, open_redis
from tests.caching.conftest import LIFETIMES, Source, Thing
from tests.readings import readings
from tests.settled import settled

ROWS = {key: Thing(name=f"thing {key}", version=key) for key in range(1, 101)}


@pytest.fixture
def cache(region: Region[int, Thing], source: Source) -> ReadThrough[int, Thing]:
    """A cache over a hundred rows."""
    source.rows.update(ROWS)
    return ReadThrough(region, load=source.get_many)


async def test_a_miss_is_loaded_and_a_hit_is_not(cache: ReadThrough[int, Thing], source: Source) -> None:
    readings = [await cache.get(1), await cache.get(1)]
    assert [reading.outcome for reading in readings] == [Outcome.MISS, Outcome.HIT]
    assert [reading.value for reading in readings] == [ROWS[1]] * 2
    assert source.asked == {1: 1}


async def test_get_many_loads_all_misses_at_once_and_counts_all_hits(
    cache: ReadThrough[int, Thing],
    source: Source,
    redis: Redis,
    reported: Counter[Event],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Counted at this client: the server's count includes all clients.
    scripts, evalsha = 0, redis.evalsha

    def counted(*words: Any) -> Any:
        nonlocal scripts
        scripts += 1
        return evalsha(*words)

    await cache.get_many([1, 2, 3])
    source.calls = 0
    monkeypatch.setattr(redis, "evalsha", counted)
    found = readings(await cache.get_many([*range(100, 0, -1), 404]))
    assert [reading.value for reading in found] == [ROWS[key] for key in range(100, 0, -1)] + [None]
    assert source.calls == 1
    assert set(source.asked.values()) == {1}
    # One lookup and one fill for all keys together.
    assert scripts == 2
    assert (reported[Event.HIT], reported[Event.MISS]) == (3, 101)

    found = readings(await cache.get_many([*range(1, 101), 404]))
    assert {reading.outcome for reading in found} == {Outcome.HIT}
    assert (source.calls, reported[Event.HIT]) == (1, 104)


async def test_concurrent_misses_on_many_keys_share_one_load(cache: ReadThrough[int, Thing], source: Source) -> None:
    readings = await asyncio.gather(*(cache.get(key) for key in range(1, 101) for _ in range(5)))
    assert source.calls == 1
    assert Counter(reading.outcome for reading in readings) == {Outcome.MISS: 100, Outcome.COLLAPSED: 400}


async def test_an_invalidated_key_is_loaded_again(cache: ReadThrough[int, Thing], source: Source) -> None:
    await cache.get(1)
    source.rows[1] = Thing(name="new", version=200)
    await cache.invalidate(1, 200)
    assert (await cache.get(1)).value == source.rows[1]


async def test_without_redis_the_database_answers(source: Source, opened: Cache) -> None:
    reported: Counter[Event] = Counter()
    source.rows.update(ROWS)

    def observe(name: str, event: Event, took: timedelta, times: int) -> None:
        reported[event] += times

    async with open_redis("unix:///nowhere/redis.sock", timeout=timedelta(seconds=1), connections=1) as redis:
        region: Region[int, Thing] = Region(
            replace(opened, redis=redis),
            "things",
            Thing,
            lifetimes=LIFETIMES,
            settled=settled,
            observe=observe,
        )
        cache = ReadThrough(region, load=source.get_many)
        assert (await cache.get(1)).outcome is Outcome.BYPASSED
        found = readings(await cache.get_many([1, 404, 2]))
    assert [reading.value for reading in found] == [ROWS[1], None, ROWS[2]]
    assert source.calls == 2
    assert reported[Event.BYPASSED] == 4
