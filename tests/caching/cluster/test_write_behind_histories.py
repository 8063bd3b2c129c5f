"""Additions of several processes while a cluster changes: those that were accepted reach Postgres exactly once, all
others at most once, and no total lacks what was accepted before it was read."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial

import asyncpg
import pytest

from app.caching import CacheError, CacheUnavailable, Flow, Flusher, WriteBehind
from app.caching.write_behind.shard import number
from app.database import Database
from tests.caching.cluster.conftest import opening
from tests.caching.cluster.counting import SHARDS, Counting, part, shards_of, slot
from tests.eventually import eventually
from tests.faults.redis_cluster import RedisCluster

PROCESSES = 2
PAGES = [f"page {place}" for place in range(24)]
REPEATED, ONCE, READ = PAGES[:8], PAGES[8:16], PAGES[16:]


class Load:
    """Additions until it ends. Those to `REPEATED` are repeated under their idempotency key until they are accepted;
    those to `ONCE` have none, and are not repeated; those to `READ` are compared with what reads answer."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.accepted: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.low: list[str] = []
        self.ended = False
        self.totals = 0

    async def repeat(self, counters: WriteBehind, name: str) -> None:
        """Adds, each time until it is accepted."""
        place = 0
        while not self.ended:
            page, place = self.random.choice(REPEATED), place + 1
            key = f"{name}-{place}"
            await eventually(partial(_accepted, counters, page, key))
            self.accepted[page] += 1

    async def add(self, counters: WriteBehind) -> None:
        """Adds. Whether what failed was accepted is unknown."""
        while not self.ended:
            page = self.random.choice(ONCE)
            if await _accepted(counters, page):
                self.accepted[page] += 1
            else:
                self.unknown[page] += 1
                await asyncio.sleep(0.01)

    async def read(self, counters: WriteBehind) -> None:
        """Adds and reads."""
        while not self.ended:
            page = self.random.choice(READ)
            if self.random.random() < 0.3:
                if await _accepted(counters, page):
                    self.accepted[page] += 1
                else:
                    self.unknown[page] += 1
            else:
                before = self.accepted[page]
                try:
                    total = await counters.get(page)
                except CacheError:
                    await asyncio.sleep(0.01)
                    continue
                self.totals += 1
                if total.amount < before:
                    self.low.append(f"{page}: {total.amount} after {before}, cached: {total.cached}")


async def _accepted(counters: WriteBehind, page: str, key: str | None = None) -> bool:
    try:
        await counters.add(page, 1, key)
    except CacheUnavailable:
        return False
    return True


async def under_load(
    redis_cluster: RedisCluster,
    database: Database,
    sql: asyncpg.Connection,
    seed: int,
    change: Callable[[Load], Awaitable[None]],
) -> tuple[Load, Counter[Flow]]:
    """Counts while the cluster changes, and compares what Postgres has at the end. Returns what was added, and what
    became of it."""
    load, flow, short = Load(seed), Counter[Flow](), timedelta(milliseconds=20)

    def observe(which: Flow, count: int) -> None:
        flow[which] += count

    async with AsyncExitStack() as stack:
        tasks, every = [], []
        for place in range(PROCESSES):
            cluster = await stack.enter_async_context(opening(redis_cluster))
            target = Counting(cluster, database).target
            counters = await stack.enter_async_context(WriteBehind(cluster, "views", target, observe=observe))
            await stack.enter_async_context(Flusher(cluster, "views", target, interval=short, observe=observe))
            every.append(counters)
            tasks += [asyncio.create_task(load.repeat(counters, f"client-{place}-{each}")) for each in range(2)]
            tasks += [asyncio.create_task(load.add(counters)) for _ in range(2)]
            tasks += [asyncio.create_task(load.read(counters)) for _ in range(2)]
        await change(load)
        load.ended = True
        await asyncio.gather(*tasks)

        async def nothing_is_owed() -> bool:
            """Nothing is pending, and no receipt says that anything was lost."""
            try:
                pending = [(await counters.backlog()).amount for counters in every]
            except CacheUnavailable:
                return False
            return not any(pending) and not any(counters.receipts.amount for counters in every)

        await eventually(nothing_is_owed)
        counted = {row["page"]: row["views"] for row in await sql.fetch("SELECT page, views FROM page_views")}
        for page in PAGES:
            assert (await every[0].get(page)).amount == counted.get(page, 0)
    print(sum(load.accepted.values()), load.unknown.total(), load.totals, dict(flow))
    for page in PAGES:
        assert load.accepted[page] <= counted.get(page, 0) <= load.accepted[page] + load.unknown[page], page
    assert all(counted.get(page, 0) == load.accepted[page] for page in REPEATED)
    assert {number(page) for page in load.accepted} == {shard.number for shard in SHARDS}
    assert flow[Flow.LOST] == flow[Flow.DEAD] == 0
    return load, flow


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(10))
async def test_additions_are_counted_once_and_are_in_all_totals_while_slots_move_there_and_back(
    redis_cluster: RedisCluster, database: Database, sql: asyncpg.Connection, seed: int
) -> None:
    async def change(load: Load) -> None:
        primaries = await redis_cluster.primaries()
        for target in random.Random(seed).sample(primaries, 3):
            await redis_cluster.move([slot(shard) for shard in SHARDS], target)

    load, _ = await under_load(redis_cluster, database, sql, seed, change)
    assert load.low == []
    assert load.totals > 0


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(5))
async def test_additions_are_counted_once_while_primaries_fail_over(
    database: Database, sql: asyncpg.Connection, seed: int
) -> None:
    """By hand, there and back · killed · killed when its replica lacks a part of what was accepted"""
    async with RedisCluster.started(3, replicas=1) as redis_cluster:

        async def change(load: Load) -> None:
            first, second, third = await redis_cluster.primaries()
            (replica,) = redis_cluster.replicas_of(first)
            await redis_cluster.fail_over(replica)
            await redis_cluster.fail_over(first)
            (replica,) = redis_cluster.replicas_of(second)
            await second.kill()
            await redis_cluster.promoted(replica)
            (replica,) = redis_cluster.replicas_of(third)
            await part(third)
            numbers = await shards_of(redis_cluster, third)
            pages = [page for page in PAGES if number(page) in numbers]
            before = sum(load.accepted[page] for page in pages)

            async def has_accepted_more() -> bool:
                return sum(load.accepted[page] for page in pages) > before + 20

            await eventually(has_accepted_more)
            await third.kill()
            await redis_cluster.promoted(replica)

        await under_load(redis_cluster, database, sql, seed, change)
