"""Our four strategies over a table whose statements are steps: each object is a process of its own.

The same classes and scripts as the service's, wired as `app.wiring` wires them. Two parts of the service are told in a
few lines here: the relay, which carries the outbox until Redis was told of every change (`carry`), and what waits for
it when an invalidation failed (`settled`). Redis is believed throughout: that nobody believes a Redis which was not
told is the relay's promise, and is tested with it.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from pydantic import BaseModel
from redis.asyncio import Redis

from app.caching import (
    Batch,
    Breaker,
    Cache,
    CacheAside,
    CacheUnavailable,
    Cap,
    Flusher,
    Lifetimes,
    Locked,
    Pending,
    ReadThrough,
    RedisClock,
    Region,
    Revoke,
    Standing,
    Target,
    TargetUnavailable,
    WriteBehind,
    WriteThrough,
)
from app.caching.moment import NEVER
from app.lab.races.stepped_table import SteppedTable
from app.lab.strategy import Holds, Row


class Number(BaseModel, frozen=True):
    """A row, as it is cached."""

    value: int
    version: int


def _number(row: Row | None) -> Number | None:
    return None if row is None else Number(value=row.value, version=row.version)


def _trusting() -> Breaker:
    breaker = Breaker(loads=8)
    breaker.reachable = True
    breaker.close(breaker.losses, NEVER)
    return breaker


def _region(redis: Redis, table: SteppedTable, prefix: str, ttl: timedelta) -> Region[str, Number]:
    region: Region[str, Number]

    async def settled(key: str) -> None:
        # Another process' relay carries the change: as often as it takes.
        while True:
            try:
                row = await table.load(key)
                await region.try_invalidate(key, row.version if row else 0)
                return
            except (CacheUnavailable, OSError):
                continue

    region = Region(
        Cache(redis, RedisClock(), _trusting()),
        prefix,
        Number,
        lifetimes=Lifetimes(fresh=ttl, stale=timedelta(0), absent=ttl),
        settled=settled,
    )
    return region


class SteppedCacheAside:
    """Cache-aside."""

    holds = Holds.VALUES

    def __init__(self, redis: Redis, table: SteppedTable, prefix: str, ttl: timedelta) -> None:
        self._table, self._region = table, _region(redis, table, prefix, ttl)
        self._cache = CacheAside(self._region)

    async def read(self, key: str) -> int | None:
        """From the cache, else by our own query."""
        number = (await self._cache.get(key, self._load)).value
        return None if number is None else number.value

    async def write(self, key: str, value: int) -> None:
        """Into the table, and then the invalidation."""
        await self._cache.write(self._table.save(key, value), lambda row: {key: row.version} if row else {})

    async def carry(self) -> None:
        """A poll of the relay."""
        await _carry(self._table, self._region)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The region, until its last load has ended."""
        async with self._region:
            yield

    async def _load(self, key: str) -> Number | None:
        return _number(await self._table.load(key))


class SteppedReadThrough:
    """Read-through."""

    holds = Holds.VALUES

    def __init__(self, redis: Redis, table: SteppedTable, prefix: str, ttl: timedelta) -> None:
        self._table, self._region = table, _region(redis, table, prefix, ttl)
        self._cache = ReadThrough(self._region, self._load)

    async def read(self, key: str) -> int | None:
        """From the cache, which loads itself."""
        number = (await self._cache.get(key)).value
        return None if number is None else number.value

    async def write(self, key: str, value: int) -> None:
        """Into the table, and then the invalidation."""
        await self._cache.write(self._table.save(key, value), lambda row: {key: row.version} if row else {})

    async def carry(self) -> None:
        """A poll of the relay."""
        await _carry(self._table, self._region)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The region, until its last load has ended."""
        async with self._region:
            yield

    async def _load(self, keys: Sequence[str]) -> Mapping[str, Number]:
        numbers = {key: _number(await self._table.load(key)) for key in keys}
        return {key: number for key, number in numbers.items() if number is not None}


class SteppedWriteThrough:
    """Write-through."""

    holds = Holds.VALUES

    def __init__(self, redis: Redis, table: SteppedTable, prefix: str, ttl: timedelta) -> None:
        self._table, self._region = table, _region(redis, table, prefix, ttl)
        self._cache: WriteThrough[str, int, Number] = WriteThrough(self._region, self._load, self._save)

    async def read(self, key: str) -> int | None:
        """From the cache, which loads itself."""
        number = (await self._cache.get(key)).value
        return None if number is None else number.value

    async def write(self, key: str, value: int) -> None:
        """Into both, or into neither."""
        await self._cache.put(key, value)

    async def carry(self) -> None:
        """A poll of the relay."""
        await _carry(self._table, self._region)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The region, until its last load has ended."""
        async with self._region:
            yield

    async def _load(self, key: str) -> Number | Locked[Number] | None:
        row, shared = await self._table.load_shared(key)
        return _number(row) if shared else Locked(_number(row))

    async def _save(self, key: str, value: int, revoke: Revoke) -> Number | None:
        return _number(await self._table.save_locked(key, value, revoke))


class SteppedWriteBehind:
    """Write-behind, and the flusher that carries it."""

    holds = Holds.COUNTS

    def __init__(self, redis: Redis, table: SteppedTable, prefix: str, ttl: timedelta) -> None:
        self._table = table
        cache, target = Cache(redis, RedisClock(), _trusting()), Target(self._load, self._apply, self._salvage)
        self._counters = WriteBehind(cache, prefix, target, cap=Cap(entries=1000, bytes=2**20))
        self._flusher = Flusher(cache, prefix, target, amount=1, interval=timedelta(0))

    async def read(self, key: str) -> int | None:
        """From Redis, with what waits."""
        return (await self._counters.get(key)).amount

    async def write(self, key: str, value: int) -> None:
        """Adds one, in Redis."""
        await self._counters.add(key, 1)

    async def flush(self) -> int:
        """A round of the flusher."""
        return await self._flusher.round()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Both."""
        async with self._counters, self._flusher:
            yield

    async def _load(self, keys: Sequence[str], batches: Sequence[str]) -> Standing:
        try:
            return Standing(*await self._table.standing(keys, batches))
        except OSError as error:
            raise TargetUnavailable(str(error)) from error

    async def _apply(self, batches: Sequence[Batch]) -> int:
        try:
            return await self._table.apply({batch.id: batch.amounts for batch in batches})
        except OSError as error:
            raise TargetUnavailable(str(error)) from error

    async def _salvage(self, entry: Pending, reason: str, deliveries: int) -> tuple[int, int]:
        raise AssertionError(f"Nothing here is refused: {reason}")


async def _carry(table: SteppedTable, region: Region[str, Number]) -> None:
    changes = await table.undone()
    for change in changes:
        await region.try_invalidate(change.key, change.version)
    if changes:
        await table.done(changes)
