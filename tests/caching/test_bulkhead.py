"""How many reads may bypass the cache at the same time."""

from datetime import timedelta

import pytest

from app.caching import Breaker, CacheAside, Overloaded, Region, bulkhead
from app.caching.bulkhead import Bulkhead
from tests.caching.conftest import Source, Thing

NEVER = timedelta(milliseconds=1)
OLD = Thing(name="old", version=1)


async def test_no_more_reads_bypass_the_cache_than_there_are_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulkhead, "TURN", NEVER)
    turns = Bulkhead(2)
    async with turns.turn(), turns.turn():
        with pytest.raises(Overloaded, match="Too many reads already query the database"):
            async with turns.turn():
                raise AssertionError
    async with turns.turn(), turns.turn():
        pass


async def test_a_failed_read_gives_its_turn_back(breaker: Breaker, region: Region[int, Thing], source: Source) -> None:
    breaker.open("it does not answer")
    source.error = OSError("The database is away.")
    cache = CacheAside(region)
    for _ in range(10):
        with pytest.raises(OSError, match="away"):
            await cache.get(1, source.get)
    source.error, source.rows[1] = None, OLD
    assert (await cache.get(1, source.get)).value == OLD
