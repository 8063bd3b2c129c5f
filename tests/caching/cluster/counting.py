"""Page views counted by processes on a cluster: with their real wiring, in the real Postgres."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg

from app.caching import CacheUnavailable, Flow, Flusher
from app.caching.cluster import Cluster
from app.caching.cluster.slot_map import slot_of
from app.caching.write_behind.shard import COUNT, Shard, number, shards
from app.database import Database
from app.page_views.store import PageViewStore
from app.page_views.target import target
from tests.caching.write_behind.views import Unwatched
from tests.faults.redis_cluster import RedisCluster
from tests.faults.redis_node import RedisNode

SHARDS = shards("views")
PAGES = {number(page): page for page in (f"page {place}" for place in range(20))}
"""A page of each shard."""


def slot(shard: Shard) -> int:
    """Returns the slot of a shard."""
    return slot_of(shard.stream)


async def shards_of(redis_cluster: RedisCluster, node: RedisNode) -> set[int]:
    """Returns the numbers of the shards that a node owns."""
    return {shard.number for shard in SHARDS if await redis_cluster.owner(slot(shard)) is node}


async def counted(sql: asyncpg.Connection) -> Mapping[str, int]:
    """Returns the views that Postgres has of each page."""
    return {row["page"]: row["views"] for row in await sql.fetch("SELECT page, views FROM page_views")}


async def succeeds(ask: Callable[[], Awaitable[object]]) -> bool:
    """Returns whether Redis is available to what is asked."""
    try:
        await ask()
    except CacheUnavailable:
        return False
    return True


async def part(primary: RedisNode) -> None:
    """Ends the stream of changes from a primary to its replica, for good."""
    await primary.ask("ACL", "SETUSER", "default", "-psync", "-sync", "-replconf")
    await primary.ask("CLIENT", "KILL", "TYPE", "replica")


class Counting:
    """A process that counts. Only the test runs its flusher, and checks its receipts."""

    def __init__(self, cluster: Cluster, database: Database) -> None:
        store = PageViewStore(database)
        self.flow: Counter[Flow] = Counter()
        self.target = target(store, store)
        self.counters = Unwatched(cluster, "views", self.target, observe=self.observe)
        self.flusher = Flusher(
            cluster, "views", self.target, amount=1, interval=timedelta(milliseconds=1), observe=self.observe
        )

    def observe(self, flow: Flow, count: int) -> None:
        """Counts the reported events."""
        self.flow[flow] += count

    async def total(self, page: str) -> int:
        """Returns what a read answers."""
        return (await self.counters.get(page)).amount

    async def check(self) -> None:
        """Checks for losses of Redis, however young the additions are."""
        await self.counters.recovery.check(young=timedelta(0))

    async def carry(self, numbers: Iterable[int] = range(COUNT)) -> None:
        """Flushes all pending additions to these shards."""
        flushings = [self.flusher._flushings[number] for number in numbers]
        in_vain = 0
        while in_vain < 2:  # The first round may have had to create the groups.
            in_vain = 0 if sum([await each.round() for each in flushings]) else in_vain + 1


@asynccontextmanager
async def counting(cluster: Cluster, database: Database) -> AsyncIterator[Counting]:
    """Counts while the block lasts."""
    one = Counting(cluster, database)
    async with one.counters:
        yield one
