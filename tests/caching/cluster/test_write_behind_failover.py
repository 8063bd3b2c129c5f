"""Write-behind on a cluster whose primaries fail over: nothing that was accepted is lost, or counted twice."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial

import asyncpg
import pytest

from app.caching import Flow
from app.caching.write_behind import gathering
from app.caching.write_behind.shard import number
from app.database import Database
from tests.caching.cluster.conftest import opening
from tests.caching.cluster.counting import PAGES, SHARDS, counted, counting, part, succeeds
from tests.eventually import eventually
from tests.faults.redis_cluster import RedisCluster

SHARD, PAGE = SHARDS[3], PAGES[3]
OTHER = next(page for page in (f"other page {place}" for place in range(20)) if number(page) == SHARD.number)
"""A shard of the first primary, and two pages of it."""

pytestmark = pytest.mark.prove


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes flushers wait only briefly for additions that do not come."""
    monkeypatch.setattr(gathering, "BLOCK", timedelta(milliseconds=5))


@pytest.fixture
async def replicated() -> AsyncIterator[RedisCluster]:
    """Three primaries with a replica each."""
    async with RedisCluster.started(3, replicas=1) as redis_cluster:
        yield redis_cluster


async def test_what_a_promoted_replica_lacks_is_accepted_again_and_counted_once(
    replicated: RedisCluster, database: Database, sql: asyncpg.Connection
) -> None:
    """A has accepted 5, and its replica B has them       B no longer hears of A
    A accepts 7, and the flusher counts both entries
    A accepts 3 under an idempotency key                  A dies, and B is promoted: it still has the 5 as pending, the
                                                          7 are in no entry but in Postgres, and the 3 are nowhere
    B accepts 1 to the page with the 7: B's copy of its total lacks them
    """
    first, *_ = await replicated.primaries()
    (replica,) = replicated.replicas_of(first)
    async with opening(replicated) as cluster, counting(cluster, database) as views:
        await views.carry()
        await views.counters.add_many({PAGE: 5, OTHER: 5})
        assert await views.total(PAGE) == await views.total(OTHER) == 5
        await replicated.replicated(first)
        await part(first)
        await views.counters.add(OTHER, 7)
        await views.carry()
        assert await counted(sql) == {PAGE: 5, OTHER: 12}
        await views.counters.add(PAGE, 3, "click-1")
        assert await views.total(PAGE) == 8
        await first.kill()
        await replicated.promoted(replica)
        await eventually(partial(succeeds, views.check))
        await views.counters.add(OTHER, 1)
        assert await views.total(OTHER) == 13
        assert await views.total(PAGE) == 8
        assert views.flow[Flow.RECOVERED] == 3
        await views.counters.add(PAGE, 3, "click-1")
        await views.carry()
        assert await counted(sql) == {PAGE: 8, OTHER: 13}
        assert (await views.total(PAGE), await views.total(OTHER)) == (8, 13)
        await views.check()
        assert views.counters.receipts.amount == 0


async def test_a_dead_primary_fails_only_its_shards_and_only_until_its_replica_stands(
    replicated: RedisCluster, database: Database, sql: asyncpg.Connection
) -> None:
    first, *_ = await replicated.primaries()
    (replica,) = replicated.replicas_of(first)
    async with opening(replicated) as cluster, counting(cluster, database) as views:
        await views.counters.add_many(dict.fromkeys(PAGES.values(), 1))
        await replicated.replicated(first)
        await first.kill()
        accepted = [await succeeds(partial(views.counters.add, page, 5, "click")) for page in PAGES.values()]
        assert accepted == [number != SHARD.number for number in PAGES]
        await replicated.promoted(replica)
        await eventually(partial(succeeds, partial(views.counters.add, PAGE, 5, "click")))
        await views.carry()
        assert await counted(sql) == dict.fromkeys(PAGES.values(), 6)
        assert [await views.total(page) for page in PAGES.values()] == [6] * 4


async def test_a_flusher_that_waits_at_a_primary_follows_its_replica(
    replicated: RedisCluster, database: Database, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flusher waits at A for entries       A becomes the replica of B, and ends the wait with an error
    B accepts                                   the flusher reads from B
    """
    first, *_ = await replicated.primaries()
    (replica,) = replicated.replicas_of(first)
    async with opening(replicated) as cluster, counting(cluster, database) as views:
        await views.carry()
        monkeypatch.setattr(gathering, "BLOCK", timedelta(seconds=9))
        flushing = asyncio.create_task(views.flusher._flushings[SHARD.number].round())

        async def waits_at_first() -> bool:
            return bool((await first.redis.info("clients"))["blocked_clients"])

        await eventually(waits_at_first)
        await replicated.fail_over(replica)
        await views.counters.add(PAGE, 5)
        await flushing
        monkeypatch.setattr(gathering, "BLOCK", timedelta(milliseconds=5))
        await views.carry([SHARD.number])
        assert await counted(sql) == {PAGE: 5}
