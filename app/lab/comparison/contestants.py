"""Who takes part besides the published variants: no cache at all, and the four strategies of `app/caching/`.

Each is made here as `app/wiring.py` makes it for the service, over the lab's table instead of a resource's.

What can go wrong: see the strategies themselves.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta

from pydantic import BaseModel, ConfigDict
from redis.asyncio import Redis

from app.caching import (
    Breaker,
    Cache,
    CacheAside,
    Flusher,
    Lifetimes,
    Locked,
    ReadThrough,
    RedisClock,
    Region,
    Standing,
    WriteBehind,
    WriteThrough,
)
from app.lab.comparison.table import LabTable
from app.lab.strategy import Holds, Row
from app.page_views.parking import Parking
from app.page_views.store import PageViewStore
from app.page_views.target import target

STALE = timedelta(minutes=10)
ABSENT = timedelta(seconds=30)


class Entry(BaseModel):
    """A row of the lab's table, as our strategies keep it."""

    model_config = ConfigDict(frozen=True)

    value: int
    version: int


EntryRegion = Region[str, Entry]


def open_region(
    redis: Redis,
    name: str,
    ttl: timedelta,
    *,
    stale: timedelta = STALE,
    clock: RedisClock,
    breaker: Breaker,
    settled: Callable[[str], Awaitable[None]],
) -> EntryRegion:
    """The values of one contestant. `settled` as in `Region`."""
    return Region(
        Cache(redis, clock, breaker),
        name,
        Entry,
        lifetimes=Lifetimes(fresh=ttl, stale=stale, absent=ABSENT),
        settled=settled,
    )


class NoCache:
    """Every read and every write asks the database."""

    holds = Holds.VALUES

    def __init__(self, table: LabTable) -> None:
        self._table = table

    async def read(self, key: str) -> int | None:
        """The row's value."""
        row = await self._table.load(key)
        return None if row is None else row.value

    async def write(self, key: str, value: int) -> None:
        """Sets it."""
        await self._table.save(key, value)

    def running(self) -> AbstractAsyncContextManager[None]:
        """Nothing works behind it."""
        return nullcontext()


class Aside:
    """Cache-aside, as users are cached."""

    holds = Holds.VALUES

    def __init__(self, region: EntryRegion, table: LabTable) -> None:
        self._region, self._table, self._cache = region, table, CacheAside(region)

    async def read(self, key: str) -> int | None:
        """From the cache, or by a query of ours."""
        return _number((await self._cache.get(key, self._query)).value)

    async def write(self, key: str, value: int) -> None:
        """To the database, then invalidates."""
        await self._cache.write(self._table.save(key, value), lambda row: {key: row.version} if row else {})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The loads for readers who have gone."""
        async with self._region:
            yield

    async def _query(self, key: str) -> Entry | None:
        return _entry(await self._table.load(key))


class Through:
    """Read-through, as products are cached."""

    holds = Holds.VALUES

    def __init__(self, region: EntryRegion, table: LabTable) -> None:
        async def load(keys: Sequence[str]) -> Mapping[str, Entry]:
            rows = await table.load_many(keys)
            return {key: Entry(value=row.value, version=row.version) for key, row in rows.items()}

        self._region, self._table, self._cache = region, table, ReadThrough(region, load)

    async def read(self, key: str) -> int | None:
        """From the cache, which loads itself."""
        return _number((await self._cache.get(key)).value)

    async def write(self, key: str, value: int) -> None:
        """To the database, then invalidates."""
        await self._cache.write(self._table.save(key, value), lambda row: {key: row.version} if row else {})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The loads for readers who have gone."""
        async with self._region:
            yield


class Both:
    """Write-through, as stock is cached."""

    holds = Holds.VALUES

    def __init__(self, region: EntryRegion, table: LabTable) -> None:
        async def load(key: str) -> Entry | Locked[Entry] | None:
            unlocked, row = await table.load_shared(key)
            return _entry(row) if unlocked else Locked(_entry(row))

        async def save(key: str, value: int, revoke: Callable[[], Awaitable[None]]) -> Entry | None:
            return _entry(await table.save_locked(key, value, revoke))

        self._region = region
        self._cache: WriteThrough[str, int, Entry] = WriteThrough(region, load, save)

    async def read(self, key: str) -> int | None:
        """From the cache, which loads itself."""
        return _number((await self._cache.get(key)).value)

    async def write(self, key: str, value: int) -> None:
        """To both stores, or to neither."""
        await self._cache.put(key, value)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The loads and writes for those who have gone."""
        async with self._region:
            yield


class Behind:
    """Write-behind, as page views are counted. Its pages begin with `prefix`.

    `waiting_redis` is the flusher's own; `asked` is told how many totals each load asked for.
    """

    holds = Holds.COUNTS

    def __init__(
        self,
        redis: Redis,
        waiting_redis: Redis,
        name: str,
        prefix: str,
        *,
        views: PageViewStore,
        flushed_views: PageViewStore,
        parking: Parking,
        clock: RedisClock,
        breaker: Breaker,
        asked: Callable[[int], None],
    ) -> None:
        of_page_views = target(views, flushed_views)

        async def load(pages: Sequence[str], batches: Sequence[str]) -> Standing:
            asked(len(pages))
            return await of_page_views.load(pages, batches)

        self._prefix, self._parking = prefix, parking
        cache = Cache(redis, clock, breaker)
        self._cache = WriteBehind(cache, name, replace(of_page_views, load=load))
        self._flusher = Flusher(cache, name, of_page_views, redis=waiting_redis)

    async def read(self, key: str) -> int | None:
        """The total, with what waits."""
        return (await self._cache.get(self._prefix + key)).amount

    async def write(self, key: str, value: int) -> None:
        """Adds one."""
        await self._cache.add(self._prefix + key, 1)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The strategy, its flusher, and what that could not count at once."""
        async with self._cache, self._flusher, self._parking.running():
            yield


def _entry(row: Row | None) -> Entry | None:
    return None if row is None else Entry(value=row.value, version=row.version)


def _number(entry: Entry | None) -> int | None:
    return None if entry is None else entry.value
