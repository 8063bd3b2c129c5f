"""Cache-aside: the application asks both the cache and the database."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta

from app.caching import Cache, CacheAside, Event, Outcome, Region, open_redis
from tests.caching.conftest import LIFETIMES, Source, Thing
from tests.settled import settled


async def test_a_miss_runs_the_query_and_a_hit_does_not(region: Region[int, Thing], source: Source) -> None:
    cache = CacheAside(region)
    source.rows[1] = Thing(name="thing", version=1)
    readings = [await cache.get(1, source.get), await cache.get(1, source.get)]
    assert [reading.outcome for reading in readings] == [Outcome.MISS, Outcome.HIT]
    assert {reading.value for reading in readings} == {source.rows[1]}
    assert source.asked == {1: 1}


async def test_an_absent_row_is_cached_until_an_insert_invalidates_it(
    region: Region[int, Thing], source: Source
) -> None:
    cache = CacheAside(region)
    for _ in range(1000):
        assert (await cache.get(1, source.get)).payload is None
    assert source.asked == {1: 1}
    source.rows[1] = Thing(name="thing", version=1)
    await cache.invalidate(1, 1)
    assert (await cache.get(1, source.get)).value == source.rows[1]


async def test_without_redis_the_query_answers(source: Source, opened: Cache) -> None:
    reported: Counter[Event] = Counter()

    def observe(name: str, event: Event, took: timedelta, times: int) -> None:
        reported[event] += times

    source.rows[1] = Thing(name="thing", version=1)
    async with open_redis("unix:///nowhere/redis.sock", timeout=timedelta(seconds=1), connections=1) as redis:
        region: Region[int, Thing] = Region(
            replace(opened, redis=redis),
            "things",
            Thing,
            lifetimes=LIFETIMES,
            settled=settled,
            observe=observe,
        )
        cache = CacheAside(region)
        present, absent = await cache.get(1, source.get), await cache.get(2, source.get)
    assert (present.value, absent.value) == (source.rows[1], None)
    assert present.outcome is Outcome.BYPASSED
    assert reported == {Event.UNAVAILABLE: 2, Event.BYPASSED: 2}
