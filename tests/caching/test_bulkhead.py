"""How many reads may bypass the cache at the same time."""

import asyncio
from datetime import timedelta

import pytest

from app.caching import CacheAside, Outcome, Overloaded, Region, Trust, bulkhead
from app.caching.bulkhead import Bulkhead
from tests.caching.conftest import TURNS, Source, Thing

NEVER = timedelta(milliseconds=1)
OLD, NEW = Thing(name="old", version=1), Thing(name="new", version=2)


async def test_no_more_reads_bypass_the_cache_than_there_are_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulkhead, "TURN", NEVER)
    turns = Bulkhead(2)
    async with turns.turn(), turns.turn():
        with pytest.raises(Overloaded, match="Too many reads already query the database"):
            async with turns.turn():
                raise AssertionError
    async with turns.turn(), turns.turn():
        pass


async def test_a_failed_read_gives_its_turn_back(trust: Trust, region: Region[int, Thing], source: Source) -> None:
    trust.lose("it does not answer")
    source.error = OSError("The database is away.")
    cache = CacheAside(region)
    for _ in range(10):
        with pytest.raises(OSError, match="away"):
            await cache.get(1, source.get)
    source.error, source.rows[1] = None, OLD
    assert (await cache.get(1, source.get)).value == OLD


async def test_a_hot_key_costs_one_query_per_turn(trust: Trust, region: Region[int, Thing], source: Source) -> None:
    """Redis is not asked: 500 readers come at once, and 500 more each time that a query begins."""
    trust.lose("it does not answer")
    source.rows[1] = OLD
    source.hold()
    cache = CacheAside(region)
    readers = []
    for _ in range(TURNS):
        source.read.clear()
        readers += [asyncio.create_task(cache.get(1, source.get)) for _ in range(500)]
        await source.read.wait()
    source.read.clear()
    readers += [asyncio.create_task(cache.get(1, source.get)) for _ in range(500)]
    await asyncio.wait(readers[-500:], timeout=0)
    assert source.asked == {1: TURNS}
    source.open.set()
    assert {(await reader).outcome for reader in readers} == {Outcome.BYPASSED}
    assert source.asked == {1: TURNS + 1}


async def test_a_reader_that_bypasses_the_cache_does_not_join_a_query_that_has_begun(
    trust: Trust, region: Region[int, Thing], source: Source
) -> None:
    """Redis is not asked:

    R1 reads the old row, and stalls
                                        W commits the new row, and answers
                                        R2 must not get what R1 read
    """
    trust.lose("it does not answer")
    cache = CacheAside(region)
    source.rows[1] = OLD
    source.hold()
    first = asyncio.create_task(cache.get(1, source.get))
    await source.read.wait()
    source.rows[1] = NEW
    source.read.clear()
    second = asyncio.create_task(cache.get(1, source.get))
    await source.read.wait()
    source.open.set()
    assert (await first).value == OLD
    assert (await second).value == NEW
    assert source.asked == {1: 2}


async def test_a_reader_that_bypasses_the_cache_joins_a_query_that_waits_for_its_turn(
    trust: Trust, region: Region[int, Thing], source: Source
) -> None:
    """Redis is not asked, and all turns are taken:

    R1 waits for a turn
                                        W commits the new row, and answers
                                        R2 joins R1: their query begins after the commit
    """
    trust.lose("it does not answer")
    cache = CacheAside(region)
    source.rows |= dict.fromkeys(range(1, TURNS + 2), OLD)
    source.hold()
    others = [asyncio.create_task(cache.get(key, source.get)) for key in range(2, TURNS + 2)]
    await asyncio.wait(others, timeout=0)
    first = asyncio.create_task(cache.get(1, source.get))
    await asyncio.wait({first}, timeout=0)
    source.rows[1] = NEW
    second = asyncio.create_task(cache.get(1, source.get))
    await asyncio.wait({second}, timeout=0)
    assert source.asked[1] == 0
    source.open.set()
    assert [(await first).value, (await second).value] == [NEW, NEW]
    assert source.asked == dict.fromkeys(range(1, TURNS + 2), 1)
    await asyncio.gather(*others)
