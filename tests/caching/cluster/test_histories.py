"""Reads and writes of several processes while a cluster changes: no read is older than a write that was answered before
the read began, and only keys of a slot that moves, or of a node that is dead, are read from the database."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress

import pytest

from app.caching import CacheAside, NotInvalidated, Outcome, Region
from tests.caching.cluster.conftest import opening
from tests.caching.cluster.test_cluster_values import slot_of
from tests.caching.conftest import Thing
from tests.faults.redis_cluster import RedisCluster

KEYS = range(60)
PROCESSES, READERS, WRITERS = 3, 4, 2


class Table:
    """The database: the newest version of each row, and the newest whose write was answered."""

    def __init__(self) -> None:
        self.newest = dict.fromkeys(KEYS, 1)
        self.answered = dict.fromkeys(KEYS, 1)

    async def load(self, key: int) -> Thing:
        """Reads a row. Its answer takes a moment, as from a database."""
        version = self.newest[key]
        await asyncio.sleep(0)
        return Thing(name=str(version), version=version)


class Load:
    """Processes that read and write until it ends."""

    def __init__(self, seed: int) -> None:
        self.random, self.table = random.Random(seed), Table()
        self.stale: list[str] = []
        self.outcomes: Counter[Outcome] = Counter()
        self.writes: Counter[str] = Counter()
        self.ended = False

    async def read(self, cache: CacheAside[int, Thing]) -> None:
        """Reads again and again."""
        while not self.ended:
            key = self.random.choice(KEYS)
            needed = self.table.answered[key]
            reading = await cache.get(key, self.table.load)
            self.outcomes[reading.outcome] += 1
            if reading.version < needed:
                self.stale.append(f"{key}: {reading.version} after {needed}, a {reading.outcome}")

    async def write(self, cache: CacheAside[int, Thing]) -> None:
        """Writes again and again. A write whose invalidation failed is not answered."""
        while not self.ended:
            key = self.random.choice(KEYS)
            self.table.newest[key] += 1
            version = self.table.newest[key]
            with suppress(NotInvalidated):
                await cache.invalidate(key, version)
                self.table.answered[key] = max(self.table.answered[key], version)
                self.writes["answered"] += 1
            await asyncio.sleep(0.001)


async def under_load(redis_cluster: RedisCluster, seed: int, change: Callable[[], Awaitable[None]]) -> Load:
    """Returns what was read and written while the cluster changed."""
    load = Load(seed)
    async with AsyncExitStack() as stack:
        tasks = []
        for _ in range(PROCESSES):
            cluster = await stack.enter_async_context(opening(redis_cluster))
            cache = CacheAside(await stack.enter_async_context(Region[int, Thing](cluster, "things", Thing)))
            tasks += [asyncio.create_task(load.read(cache)) for _ in range(READERS)]
            tasks += [asyncio.create_task(load.write(cache)) for _ in range(WRITERS)]
        await change()
        load.ended = True
        await asyncio.gather(*tasks)
    print(dict(load.outcomes), dict(load.writes))
    return load


SEEDS = [1, *(pytest.param(seed, marks=pytest.mark.prove) for seed in range(2, 12))]


@pytest.mark.parametrize("seed", SEEDS)
async def test_no_read_is_stale_while_slots_move_there_and_back(redis_cluster: RedisCluster, seed: int) -> None:
    async def change() -> None:
        primaries = await redis_cluster.primaries()
        slots = sorted({slot_of(key) for key in KEYS})
        for target in random.Random(seed).sample(primaries, 3):
            await redis_cluster.move(slots, target)

    load = await under_load(redis_cluster, seed, change)
    assert load.stale == []
    assert load.outcomes[Outcome.HIT] > 0 < load.writes["answered"]


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(10))
async def test_no_read_is_stale_while_primaries_fail_over(seed: int) -> None:
    async with RedisCluster.started(3, replicas=1) as redis_cluster:

        async def change() -> None:
            first, second, _ = await redis_cluster.primaries()
            (replica,) = redis_cluster.replicas_of(first)
            await redis_cluster.fail_over(replica)
            await redis_cluster.fail_over(first)
            (replica,) = redis_cluster.replicas_of(second)
            await second.kill()
            await redis_cluster.promoted(replica)

        load = await under_load(redis_cluster, seed, change)
        assert load.stale == []
        assert load.outcomes[Outcome.HIT] > 0 < load.writes["answered"]
