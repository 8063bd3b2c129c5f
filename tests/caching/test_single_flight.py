"""One load serves all readers, and no reader gets a value older than its question."""

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from types import SimpleNamespace

import pytest
from redis.asyncio import Redis
from redis.exceptions import TimeoutError as RedisTimeout

from app.caching import CacheAside, Event, LoadTimeout, Outcome, Reading, Region, single_flight, watch
from app.caching.lease import Fill, Lease
from app.caching.values import Values
from app.caching.watch import Watch
from tests.caching.conftest import NewRegion, Source, Thing
from tests.eventually import PATIENCE, eventually

OLD, NEW = Thing(name="old", version=1), Thing(name="new", version=2)


async def waits_for(redis: Redis, reader: asyncio.Task[object], lookups: int) -> None:
    """Returns when Redis has run `lookups` lookups since `CONFIG RESETSTAT`, and checks that the reader still waits."""

    async def enough() -> bool:
        stats = await redis.info("commandstats")
        return int(stats.get("cmdstat_evalsha", {}).get("calls", 0)) >= lookups

    await eventually(enough)
    assert not reader.done()


async def test_a_cold_key_is_loaded_once_for_all_readers_of_a_process(
    region: Region[int, Thing], source: Source, reported: Counter[Event]
) -> None:
    source.rows[1] = OLD
    cache = CacheAside(region)
    readings = await asyncio.gather(*(cache.get(1, source.get) for _ in range(500)))
    assert source.asked == {1: 1}
    assert {reading.value for reading in readings} == {OLD}
    assert Counter(reading.outcome for reading in readings) == {Outcome.MISS: 1, Outcome.COLLAPSED: 499}
    assert (reported[Event.MISS], reported[Event.COLLAPSED], reported[Event.STORED]) == (1, 499, 1)


async def test_a_cold_key_is_loaded_once_for_all_processes(new_region: NewRegion, source: Source) -> None:
    source.rows[1] = OLD
    caches = [CacheAside(new_region()) for _ in range(4)]
    readings = await asyncio.gather(*(cache.get(1, source.get) for cache in caches for _ in range(125)))
    assert source.asked == {1: 1}
    assert {reading.value for reading in readings} == {OLD}


async def test_an_absent_row_is_loaded_once_for_all_processes(new_region: NewRegion, source: Source) -> None:
    caches = [CacheAside(new_region()) for _ in range(4)]
    readings = await asyncio.gather(*(cache.get(1, source.get) for cache in caches for _ in range(125)))
    assert source.asked == {1: 1}
    assert {reading.payload for reading in readings} == {None}
    assert (await caches[0].get(1, source.get)).outcome is Outcome.HIT
    assert source.asked == {1: 1}


async def test_a_row_that_was_just_deleted_is_loaded_once_for_all_processes(
    new_region: NewRegion, source: Source
) -> None:
    caches = [CacheAside(new_region()) for _ in range(4)]
    source.rows[1] = OLD
    await caches[0].get(1, source.get)
    del source.rows[1]
    await caches[0].invalidate(1, 9)
    source.asked.clear()
    readings = await asyncio.gather(*(cache.get(1, source.get) for cache in caches for _ in range(125)))
    # The floor that the deletion raised must not keep the absence from being cached.
    assert source.asked == {1: 1}
    assert {reading.payload for reading in readings} == {None}


async def test_a_reader_does_not_join_a_load_that_began_before_a_write_was_answered(
    region: Region[int, Thing], source: Source
) -> None:
    """In one process:

    R1 misses, gets the lease, reads the old row, and stalls
                                        W commits the new row, invalidates, and answers
    R2 misses; if it joined R1's load by key, it would answer the old row after W was answered
    """
    cache = CacheAside(region)
    source.rows[1] = OLD
    source.hold()
    first = asyncio.create_task(cache.get(1, source.get))
    await source.read.wait()

    source.rows[1] = NEW
    await cache.invalidate(1, NEW.version)

    source.read.clear()
    second = asyncio.create_task(cache.get(1, source.get))
    await source.read.wait()
    source.open.set()
    assert (await second).value == NEW
    assert (await first).value == OLD  # It started before the write was answered.
    assert (await cache.get(1, source.get)).value == NEW


async def test_a_reader_does_not_share_a_load_whose_lease_was_voided_meanwhile(
    region: Region[int, Thing], source: Source, redis: Redis
) -> None:
    """In one process:

    R1 misses, gets the lease, reads the old row, and stalls
    R2 misses, and joins R1's load by its token
                                        W commits the new row, invalidates (the lease is void), and answers
    R3 misses
    R1's fill is refused                R2 and R3 must ask again; only R1 may answer the old row
    """
    cache = CacheAside(region)
    source.rows[1] = OLD
    source.hold()
    first = asyncio.create_task(cache.get(1, source.get))
    await source.read.wait()
    await redis.config_resetstat()
    second = asyncio.create_task(cache.get(1, source.get))
    await waits_for(redis, second, lookups=1)

    source.rows[1] = NEW
    await cache.invalidate(1, NEW.version)

    third = asyncio.create_task(cache.get(1, source.get))
    source.open.set()
    readings = await asyncio.gather(first, second, third)
    assert [reading.value for reading in readings] == [OLD, NEW, NEW]
    assert not readings[0].stored


async def test_a_reader_in_another_process_does_not_wait_for_a_voided_load(
    new_region: NewRegion, source: Source, redis: Redis
) -> None:
    """Across two processes:

    R1 in A gets the lease, reads the old row, and stalls
    R2 in B meets A's lease, and waits for it
                                        W commits the new row, invalidates, and answers
    R1's load returns the old row       R2 must not get it, and it must not be kept
    """
    a, b = CacheAside(new_region()), CacheAside(new_region())
    source.rows[1] = OLD
    source.hold()
    first = asyncio.create_task(a.get(1, source.get))
    await source.read.wait()
    await redis.config_resetstat()
    second = asyncio.create_task(b.get(1, source.get))
    await waits_for(redis, second, lookups=1)

    source.rows[1] = NEW
    await b.invalidate(1, NEW.version)
    source.open.set()
    assert (await second).value == NEW
    assert (await first).value == OLD
    assert (await a.get(1, source.get)).value == NEW


async def test_all_readers_of_one_tick_share_a_load_even_if_its_fill_is_refused(
    region: Region[int, Thing], source: Source
) -> None:
    """Readers that ask before the load begins may have its result, even when a write comes in between. Otherwise, 500
    readers of a key that is written constantly would load it one after the other."""
    cache = CacheAside(region)
    source.rows[1] = OLD
    source.hold()
    readers = [asyncio.create_task(cache.get(1, source.get)) for _ in range(500)]
    await source.read.wait()
    await cache.invalidate(1, 7)
    source.open.set()
    readings = await asyncio.gather(*readers)
    assert source.asked == {1: 1}
    assert not any(reading.stored for reading in readings)


async def test_a_failed_load_fails_for_all_its_readers_and_releases_its_lease(
    region: Region[int, Thing], source: Source, redis: Redis, reported: Counter[Event]
) -> None:
    cache = CacheAside(region)
    source.error = OSError("The database is away.")
    readings = await asyncio.gather(*(cache.get(1, source.get) for _ in range(50)), return_exceptions=True)
    assert {str(reading) for reading in readings} == {"The database is away."}
    assert source.asked == {1: 1}
    assert reported[Event.LOAD_FAILED] == 1
    assert await redis.keys("*") == []


async def test_a_cancelled_reader_does_not_affect_the_others(region: Region[int, Thing], source: Source) -> None:
    cache = CacheAside(region)
    source.rows[1] = OLD
    source.hold()
    leader = asyncio.create_task(cache.get(1, source.get))
    await source.read.wait()
    follower = asyncio.create_task(cache.get(1, source.get))
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader
    source.open.set()
    assert (await follower).value == OLD
    assert source.asked == {1: 1}


async def test_readers_take_over_when_the_lease_of_a_dead_process_expires(
    new_region: NewRegion, source: Source, redis: Redis
) -> None:
    dead, alive = new_region(), CacheAside(new_region())
    source.rows[1] = OLD
    await dead.lookup(1)  # It takes the lease, and then dies.
    await redis.config_resetstat()
    reader = asyncio.create_task(alive.get(1, source.get))
    await waits_for(redis, reader, lookups=2)
    await redis.pexpire("things:{1}:lease", 1)
    assert (await reader).value == OLD


async def test_a_waiting_reader_polls_less_often_as_a_load_goes_on_and_starts_over_with_the_next_load(
    new_region: NewRegion, source: Source, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, pauses, sleep = [0.0], list[float](), asyncio.sleep

    async def watched_sleep(seconds: float) -> None:
        if sys._getframe(1).f_code is Watch._look.__code__:
            pauses.append(seconds)
        await sleep(seconds)

    async def pauses_again() -> None:
        """Returns after two more pauses: the first may still be of the old length, the second is of the new one."""
        enough = len(pauses) + 2

        async def has_paused() -> bool:
            return len(pauses) >= enough

        await eventually(has_paused)

    monkeypatch.setattr(single_flight, "PATIENCE", timedelta(hours=1))
    monkeypatch.setattr(single_flight, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(asyncio, "sleep", watched_sleep)
    source.rows[1] = OLD
    await redis.set("things:{1}:lease", "slow", px=60_000)
    reader = asyncio.create_task(CacheAside(new_region()).get(1, source.get))
    await pauses_again()
    assert pauses[-1] <= 1.5 * watch.POLL.total_seconds()
    clock[0] += 3
    await pauses_again()
    assert 0.05 <= pauses[-1] <= 0.15
    await redis.set("things:{1}:lease", "another", px=60_000)
    await pauses_again()
    assert pauses[-1] <= 1.5 * watch.POLL.total_seconds()
    await redis.delete("things:{1}:lease")
    assert (await reader).value == OLD


async def test_a_reader_waits_for_another_process_only_for_its_patience(
    new_region: NewRegion, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single_flight, "PATIENCE", watch.POLL)
    await new_region().lookup(1)  # Another process holds the lease.
    with pytest.raises(LoadTimeout, match="A load of 1 was not done within 0"):
        await CacheAside(new_region()).get(1, source.get)
    assert source.calls == 0


async def test_a_stale_value_is_answered_when_its_load_fails(
    region: Region[int, Thing], source: Source, redis: Redis, reported: Counter[Event]
) -> None:
    cache = CacheAside(region)
    source.rows[1] = OLD
    await cache.get(1, source.get)
    # A value is kept longer than it is fresh. Moving its time into the past makes it stale.
    raw = await redis.get("things:{1}")
    assert isinstance(raw, bytes)
    schema, version, stored_at, rest = raw.split(b" ", 3)
    past = b"%d" % (int(stored_at) - 310_000)
    await redis.set("things:{1}", b" ".join([schema, version, past, rest]), px=60_000)

    source.error = OSError("The database is away.")
    reading = await cache.get(1, source.get)
    assert (reading.value, reading.outcome) == (OLD, Outcome.STALE)
    assert reading.ttl.total_seconds() < 0
    assert reported[Event.STALE] == 1
    source.error, source.rows[1] = None, NEW
    assert (await cache.get(1, source.get)).value == NEW


async def test_a_reader_cancelled_before_its_lease_arrives_leaves_no_lease_behind(
    region: Region[int, Thing], source: Source, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R asks for a lease and goes away · the lease is granted, and nobody uses it · all others wait until it expires"""
    monkeypatch.setattr("app.caching.lookup.LEASE", timedelta(hours=1))
    cache = CacheAside(region)
    source.rows[1] = OLD
    for steps in range(12):
        await redis.flushall()
        reader = asyncio.create_task(cache.get(1, source.get))
        for _ in range(steps):
            await asyncio.sleep(0)
        reader.cancel()
        await asyncio.wait({reader})
        assert (await cache.get(1, source.get)).value == OLD


async def test_a_lost_lookup_answer_costs_one_query_and_leaves_no_lease(
    region: Region[int, Thing], source: Source, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.rows[1] = OLD
    assert isinstance(region._values, Values)
    lookup, lost = region._values._lookup._script, asyncio.Event()

    async def lossy(*, keys: Sequence[str], args: Sequence[bytes]) -> object:
        answer = await lookup(keys=keys, args=args)
        if lost.is_set():
            return answer
        lost.set()
        raise RedisTimeout("The answer is lost.")

    monkeypatch.setattr(region._values._lookup, "_script", lossy)
    cache = CacheAside(region)
    readings = await asyncio.gather(*(cache.get(1, source.get) for _ in range(500)))
    assert {reading.outcome for reading in readings} == {Outcome.BYPASSED}
    assert source.asked == {1: 1}

    async def is_free() -> bool:
        return await redis.get("things:{1}:lease") is None

    await eventually(is_free)


async def test_a_load_that_takes_longer_than_its_lease_fails(
    region: Region[int, Thing], source: Source, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single_flight, "LEASE", timedelta(milliseconds=20))
    source.hold()
    with pytest.raises(LoadTimeout, match="The load of 1 took longer than 0"):
        await CacheAside(region).get(1, source.get)
    assert await redis.keys("*") == []


async def test_one_reader_refreshes_an_entry_before_it_expires_while_all_others_hit_it(
    new_region: NewRegion, source: Source, reported: Counter[Event]
) -> None:
    """XFetch: the load took a thousand seconds, and the entry expires sooner than that, so nearly every hit would start
    a load. Exactly one does, across all processes, and nobody waits for it."""
    regions = [new_region() for _ in range(3)]
    caches = [CacheAside(region) for region in regions]
    await filled(regions[0], OLD, cost=timedelta(seconds=1000))
    source.rows[1] = NEW
    source.hold()
    while not source.read.is_set():
        assert (await caches[0].get(1, source.get)).value == OLD
    hits = await asyncio.gather(*(cache.get(1, source.get) for cache in caches for _ in range(100)))
    assert {(hit.value, hit.outcome) for hit in hits} == {(OLD, Outcome.HIT)}
    assert source.asked == {1: 1}
    assert reported[Event.REFRESHED] == 1
    source.open.set()

    async def is_new() -> bool:
        return (await caches[1].get(1, source.get)).value == NEW

    await eventually(is_new)


async def test_an_early_refresh_does_not_bring_the_old_row_back(
    region: Region[int, Thing], source: Source, reported: Counter[Event]
) -> None:
    """B4. R loads v1 to refresh it, and stalls
                                        W commits v2, invalidates, and answers
    R would set v1: readers from then on would get the value from before W's answer
    """
    cache = CacheAside(region)
    await filled(region, OLD, cost=timedelta(seconds=1000))
    source.rows[1] = OLD
    source.hold()
    while not source.read.is_set():
        await cache.get(1, source.get)

    source.rows[1] = NEW
    await cache.invalidate(1, NEW.version)

    source.open.set()

    async def was_refused() -> bool:
        return reported[Event.REFUSED] == 1

    await eventually(was_refused)
    assert (await cache.get(1, source.get)).value == NEW


async def test_a_fresh_entry_with_a_cheap_load_is_not_refreshed(region: Region[int, Thing], source: Source) -> None:
    cache = CacheAside(region)
    await filled(region, OLD, cost=timedelta(milliseconds=5))
    for _ in range(1000):
        assert (await cache.get(1, source.get)).outcome is Outcome.HIT
    assert source.calls == 0


async def test_a_failed_early_refresh_fails_no_reader_and_releases_its_lease(
    region: Region[int, Thing], source: Source, redis: Redis, reported: Counter[Event]
) -> None:
    cache = CacheAside(region)
    await filled(region, OLD, cost=timedelta(seconds=1000))
    source.error = ConnectionError("The source is away.")
    while not reported[Event.LOAD_FAILED]:
        assert (await cache.get(1, source.get)).value == OLD

    async def is_free() -> bool:
        return not await redis.exists("things:{1}:lease")

    await eventually(is_free)
    assert (await cache.get(1, source.get)).value == OLD


async def filled(region: Region[int, Thing], value: Thing, cost: timedelta) -> None:
    """Stores a value whose load took `cost`."""
    lease = await region.lookup(1)
    assert isinstance(lease, Lease)
    _reading, fill = await region.fill(1, lease.token, value, cost)
    assert fill is Fill.STORED


async def test_readers_that_wait_for_another_process_share_their_lookups(new_region: NewRegion, source: Source) -> None:
    source.rows[1] = OLD
    source.hold()
    there, here = CacheAside(new_region()), new_region()
    leader = asyncio.create_task(there.get(1, source.get))
    await source.read.wait()
    asked = _counting(here)
    readers = [asyncio.create_task(CacheAside(here).get(1, source.get)) for _ in range(100)]
    await eventually(_reaches(asked, 103))  # Each asks once at first, and then all of them together ask three times.
    assert not any(reader.done() for reader in readers)
    source.open.set()
    assert {(await reader).value for reader in readers} == {(await leader).value} == {OLD}
    assert source.asked == {1: 1}


async def test_a_waiting_reader_is_not_answered_by_a_lookup_sent_before_it_began_to_wait(
    new_region: NewRegion, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loads, R1 waits for A's load

    R1's process looks the key up again, and the lookup finds the old row. This answer is still on its way
                                        W commits the new row, invalidates, and answers; C loads it
    R2 begins to wait for C; R1's lookup would give it the old row, though R2 started after W was answered
    """
    source.rows[1] = OLD
    source.hold()
    regions = [new_region() for _ in range(3)]
    away, here, third = map(CacheAside, regions)
    region = regions[1]
    first_load = asyncio.create_task(away.get(1, source.get))
    await source.read.wait()
    looked_up, on_its_way, arrive = region.lookup, asyncio.Event(), asyncio.Event()

    async def lookup(key: int) -> Reading[Thing] | Lease[Thing]:
        answer = await looked_up(key)
        if isinstance(answer, Reading) and not on_its_way.is_set():
            on_its_way.set()
            await arrive.wait()
        return answer

    monkeypatch.setattr(region, "lookup", lookup)
    asked = _counting(region)
    r1 = asyncio.create_task(here.get(1, source.get))
    await eventually(_reaches(asked, 1))
    source.open.set()
    await first_load
    await on_its_way.wait()
    source.hold()
    source.rows[1] = NEW
    await away.invalidate(1, NEW.version)
    second_load = asyncio.create_task(third.get(1, source.get))
    await source.read.wait()
    before = asked[1]
    r2 = asyncio.create_task(here.get(1, source.get))
    await eventually(_reaches(asked, before + 1))
    arrive.set()
    assert (await r1).value == OLD  # It started before W was answered.
    source.open.set()
    assert (await r2).value == (await second_load).value == NEW


async def test_a_reader_that_waits_for_another_process_does_not_delay_shutdown(
    new_region: NewRegion, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single_flight, "PATIENCE", timedelta(hours=1))
    source.hold()
    there, region = CacheAside(new_region()), new_region()
    leader = asyncio.create_task(there.get(1, source.get))
    await source.read.wait()
    asked = _counting(region)
    reader = asyncio.create_task(CacheAside(region).get(1, source.get))
    await eventually(_reaches(asked, 2))
    await asyncio.wait_for(region.__aexit__(), PATIENCE)
    with pytest.raises(LoadTimeout):
        await reader
    source.open.set()
    assert (await leader).payload is None


def _counting(region: Region[int, Thing]) -> Counter[int]:
    """Counts the lookups of a region by key, from now on."""
    asked: Counter[int] = Counter()
    lookup = region.lookup

    async def counted(key: int) -> Reading[Thing] | Lease[Thing]:
        answer = await lookup(key)
        asked[key] += 1
        return answer

    region.lookup = counted  # type: ignore[method-assign]
    return asked


def _reaches(asked: Counter[int], number: int) -> Callable[[], Awaitable[bool]]:
    async def reached() -> bool:
        return asked[1] >= number

    return reached
