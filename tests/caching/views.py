"""Page views as they are wired, with gates, and with processes that die when a test wants them to."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Self

import asyncpg
import pytest
from redis.asyncio import Redis
from sqlalchemy.exc import DBAPIError

from app.availability import said
from app.caching import (
    Batch,
    Breaker,
    Cap,
    Flow,
    Flusher,
    NotDone,
    RedisClock,
    Refused,
    Salvage,
    Standing,
    TargetUnavailable,
    WriteBehind,
    open_redis,
)
from app.caching.shards import Shard, number, ulid, ulid_time
from app.database import Database
from app.embedded import Endpoints
from app.errors import DatabaseUnavailable, TookTooLong, Uncountable
from app.page_views.models import Counted, Unreadable
from app.page_views.store import PageViewStore

COUNTED = """
SELECT page, sum(views)::bigint AS views
FROM (SELECT page, views FROM page_views UNION ALL SELECT page, delta FROM parked_views) AS each GROUP BY page
"""
"""What is counted of each page, with what waits for its row."""
HOME = Shard("views", number("home"))
CAP = Cap(entries=40_000, bytes=2**27)


class Lost(Exception):
    """A process died, or its link did."""


class Views:
    """A process that takes page views on, and one that carries them. There is a gate before and behind each answer of
    the database, and one before each flush; a flush can die after its COMMIT, and a salvage after its own."""

    def __init__(self, redis: Redis, waiting: Redis, clock: RedisClock, breaker: Breaker, database: Database) -> None:
        self.store = PageViewStore(database)
        self.dies_after_commit = self.dies_after_salvage = False
        self.before, self.behind = asyncio.Event(), asyncio.Event()
        self.asked, self.read = asyncio.Event(), asyncio.Event()
        self.gathered, self.commit = asyncio.Event(), asyncio.Event()
        self.open()
        self.flow: Counter[Flow] = Counter()
        self.flushes: list[int] = []
        """How many batches each flush was given."""
        self.counters = WriteBehind(
            redis, "views", self.load, cap=CAP, clock=clock, breaker=breaker, observe=self.observe
        )
        self.waiting, self.breaker = waiting, breaker
        self._stores = redis, waiting, clock, breaker, database
        self.flusher = self.new_flusher()

    def another(self, clock: RedisClock | None = None) -> Self:
        """Another process, with the same stores, and perhaps another copy of Redis' clock."""
        redis, waiting, own, breaker, database = self._stores
        return type(self)(redis, waiting, clock or own, breaker, database)

    def new_flusher(self, *, views: int = 1, interval: timedelta = timedelta(milliseconds=1)) -> Flusher:
        """Another flusher: another process."""
        return Flusher(
            self.waiting,
            "views",
            self.flush,
            self.salvage,
            views=views,
            interval=interval,
            breaker=self.breaker,
            observe=self.observe,
        )

    def open(self) -> None:
        """Opens all gates."""
        for gate in (self.before, self.behind, self.commit):
            gate.set()

    def observe(self, flow: Flow, count: int) -> None:
        """Counts what was reported."""
        self.flow[flow] += count

    async def load(self, pages: Sequence[str], batches: Sequence[str]) -> Standing:
        """What the database has, through the gates."""
        self.asked.set()
        await self.before.wait()
        with _target():
            standing = Standing(*await self.store.standing(pages, [(batch, made_at(batch)) for batch in batches]))
        self.read.set()
        await self.behind.wait()
        return standing

    async def flush(self, batches: Sequence[Batch]) -> int:
        """Counts in the database, through the gate before it."""
        self.flushes.append(len(batches))
        self.gathered.set()
        await self.commit.wait()
        with _target():
            rows = await self.store.apply([Counted(batch.id, made_at(batch.id), batch.deltas) for batch in batches])
        if self.dies_after_commit:
            raise Lost
        return rows

    async def salvage(self, one: Salvage) -> tuple[int, int]:
        """Counts in the database what can be counted."""
        batch = one.batch and Counted(one.batch.id, made_at(one.batch.id), one.batch.deltas)
        with _target():
            kept = await self.store.salvage(batch or Unreadable(one.place, one.raw), one.reason, one.deliveries)
        if self.dies_after_commit or self.dies_after_salvage:
            raise Lost
        return kept

    async def commit_without_acknowledging(self) -> None:
        """A flush whose process dies right after COMMIT."""
        self.dies_after_commit = True
        with pytest.raises(Lost):
            await self.flusher.round()
        self.dies_after_commit = False

    async def total(self, page: str = "home") -> int:
        """What a read answers."""
        return (await self.counters.get(page)).views

    async def check(self) -> None:
        """Looks for what Redis has lost, however young it is."""
        await self.counters.receipts.check(young=timedelta(0))

    async def carry(self, flusher: Flusher | None = None) -> None:
        """Carries all that waits."""
        flusher, in_vain = flusher or self.flusher, 0
        while in_vain < 2:  # The first one may have had to create the groups.
            in_vain = 0 if await flusher.round() else in_vain + 1


@asynccontextmanager
async def open_views(
    endpoints: Endpoints, redis: Redis, clock: RedisClock, breaker: Breaker, database: Database
) -> AsyncIterator[Views]:
    """Page views over real servers; nobody runs the flusher, nor looks after receipts, but the test."""
    async with open_redis(endpoints.redis_url, timeout=timedelta(seconds=10), connections=4) as waiting:
        views = Views(redis, waiting, clock, breaker, database)
        async with views.counters:
            await views.flusher.round()  # It creates the groups.
            yield views
            views.open()


@contextmanager
def _target() -> Iterator[None]:
    try:
        yield
    except DatabaseUnavailable as error:
        slow = isinstance(error, TookTooLong) or isinstance(error.__cause__, TookTooLong)
        raise (NotDone if slow else TargetUnavailable)(str(error)) from error
    except Uncountable as error:
        raise Refused(str(error)) from error
    except DBAPIError as error:
        raise NotDone(f"Postgres says: {said(error)}.") from error


def made_at(batch: str) -> datetime:
    """When a batch was made."""
    return datetime.fromtimestamp(ulid_time(batch) / 1000, UTC)


def batch_of(age: timedelta = timedelta(0)) -> str:
    """A batch that was made so long ago."""
    return ulid((datetime.now(UTC) - age).timestamp() * 1000)


async def stored(sql: asyncpg.Connection, page: str = "home") -> int:
    """What Postgres has."""
    return int(await sql.fetchval("SELECT coalesce((SELECT views FROM page_views WHERE page = $1), 0)", page))


async def sums(sql: asyncpg.Connection) -> Mapping[str, int]:
    """What Postgres has of every page."""
    return {row["page"]: row["views"] for row in await sql.fetch("SELECT page, views FROM page_views")}


async def drop_partitions(sql: asyncpg.Connection) -> None:
    """Somebody drops all partitions of the ledger."""
    for partition in await sql.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'applied'::regclass"
    ):
        await sql.execute(f"DROP TABLE {partition['name']}")


async def new_ledger(sql: asyncpg.Connection) -> None:
    """The ledger is that of a new database."""
    await drop_partitions(sql)
    await sql.execute(
        "DELETE FROM ledger_hours; DELETE FROM set_aside; UPDATE ledger_floor SET hour = '1970-01-01 00:00Z'"
    )
