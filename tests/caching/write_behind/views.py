"""Page views with their real wiring, plus gates, and processes that die when a test wants them to."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Self

import asyncpg
import pytest
from redis.asyncio import Redis

from app.caching import (
    Batch,
    Cache,
    Flow,
    Flusher,
    Pending,
    RedisClock,
    Standing,
    Target,
    WriteBehind,
    open_redis,
)
from app.caching.write_behind.batch_id import ulid
from app.caching.write_behind.flushing import Flushing
from app.caching.write_behind.shard import Shard, number
from app.database import Database
from app.embedded import Endpoints
from app.page_views.store import PageViewStore
from app.page_views.target import target

COUNTED = """
SELECT page, sum(views)::bigint AS views
FROM (SELECT page, views FROM page_views UNION ALL SELECT page, delta FROM parked_views) AS each GROUP BY page
"""
"""The counted views of each page, including those that still wait for its row."""
HOME = Shard("views", number("home"))


class Lost(BaseException):
    """A process or its connection died."""


class Unwatched(WriteBehind):
    """Counters whose receipts only the test checks."""

    async def __aenter__(self) -> Self:
        await self._open.enter_async_context(self._background)
        return self


class Views:
    """A process that accepts page views and one that flushes them. There is a gate before and after each answer of the
    database, and one before each flush. A flush can die after its COMMIT, and so can a salvage."""

    def __init__(self, cache: Cache, waiting: Redis, database: Database) -> None:
        self.store = PageViewStore(database)
        self.dies_after_commit = self.dies_after_salvage = False
        self.before, self.behind = asyncio.Event(), asyncio.Event()
        self.asked, self.read = asyncio.Event(), asyncio.Event()
        self.gathered, self.commit = asyncio.Event(), asyncio.Event()
        self.open()
        self.flow: Counter[Flow] = Counter()
        self.flushes: list[int] = []
        """The number of batches in each flush."""
        self.cache = cache
        self._of_store = target(self.store, self.store)
        self.target = Target(self.load, self.flush, self.salvage)
        self.counters = Unwatched(self.cache, "views", self.target, observe=self.observe)
        self.waiting, self._database = waiting, database
        self.flusher = self.new_flusher()

    def another(self, clock: RedisClock | None = None) -> Self:
        """Returns another process with the same stores, and perhaps another copy of Redis' clock."""
        other = type(self)(replace(self.cache, clock=clock or self.cache.clock), self.waiting, self._database)
        other.counters._background.open()
        return other

    def new_flusher(self, *, amount: int = 1, interval: timedelta = timedelta(milliseconds=1)) -> Flushing:
        """Returns another flusher, which acts as another process. One Redis is one place, with one task."""
        flusher = Flusher(
            self.cache, "views", self.target, redis=self.waiting, amount=amount, interval=interval, observe=self.observe
        )
        (only,) = flusher._flushings
        return only

    def open(self) -> None:
        """Opens all gates."""
        for gate in (self.before, self.behind, self.commit):
            gate.set()

    def observe(self, flow: Flow, count: int) -> None:
        """Counts the reported events."""
        self.flow[flow] += count

    async def load(self, pages: Sequence[str], batches: Sequence[str]) -> Standing:
        """Reads the database, through the gates."""
        self.asked.set()
        await self.before.wait()
        standing = await self._of_store.load(pages, batches)
        self.read.set()
        await self.behind.wait()
        return standing

    async def flush(self, batches: Sequence[Batch]) -> int:
        """Counts in the database, through the gate before it."""
        self.flushes.append(len(batches))
        self.gathered.set()
        await self.commit.wait()
        rows = await self._of_store.flush(batches)
        if self.dies_after_commit:
            raise Lost
        return rows

    async def salvage(self, entry: Pending, reason: str, deliveries: int) -> tuple[int, int]:
        """Counts in the database what can be counted."""
        kept = await self._of_store.salvage(entry, reason, deliveries)
        if self.dies_after_commit or self.dies_after_salvage:
            raise Lost
        return kept

    async def commit_without_acknowledging(self) -> None:
        """Runs a flush whose process dies right after COMMIT."""
        self.dies_after_commit = True
        with pytest.raises(Lost):
            await self.flusher.round()
        self.dies_after_commit = False

    async def total(self, page: str = "home") -> int:
        """Returns what a read answers."""
        return (await self.counters.get(page)).amount

    async def check(self) -> None:
        """Checks for losses of Redis, however young the additions are."""
        await self.counters.recovery.check(young=timedelta(0))

    async def carry(self, flusher: Flushing | None = None) -> None:
        """Flushes all pending additions."""
        flusher, in_vain = flusher or self.flusher, 0
        while in_vain < 2:  # The first round may have had to create the groups.
            in_vain = 0 if await flusher.round() else in_vain + 1


@asynccontextmanager
async def open_views(endpoints: Endpoints, cache: Cache, database: Database) -> AsyncIterator[Views]:
    """Opens page views over real servers. Only the test runs the flusher and checks the receipts."""
    async with open_redis(endpoints.redis_url, timeout=timedelta(seconds=10), connections=4) as waiting:
        views = Views(cache, waiting, database)
        async with views.counters:
            await views.flusher.round()  # It creates the groups.
            yield views
            views.open()


def batch_of(age: timedelta = timedelta(0)) -> str:
    """Returns the name of a batch that was made `age` ago."""
    return ulid((datetime.now(UTC) - age).timestamp() * 1000)


async def stored(sql: asyncpg.Connection, page: str = "home") -> int:
    """Returns the views that Postgres has of a page."""
    return int(await sql.fetchval("SELECT coalesce((SELECT views FROM page_views WHERE page = $1), 0)", page))


async def sums(sql: asyncpg.Connection) -> Mapping[str, int]:
    """Returns the views that Postgres has of every page."""
    return {row["page"]: row["views"] for row in await sql.fetch("SELECT page, views FROM page_views")}


async def drop_partitions(sql: asyncpg.Connection) -> None:
    """Drops all partitions of the ledger, as somebody might by hand."""
    for partition in await sql.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'applied'::regclass"
    ):
        await sql.execute(f"DROP TABLE {partition['name']}")


async def new_ledger(sql: asyncpg.Connection) -> None:
    """Resets the ledger to that of a new database."""
    await drop_partitions(sql)
    await sql.execute(
        "DELETE FROM ledger_hours; DELETE FROM set_aside; UPDATE ledger_floor SET hour = '1970-01-01 00:00Z'"
    )
