"""One of our strategies in one process, with two parts of the service in a few lines.

    poll      a poll of the relay: it invalidates the changes in the outbox
    settled   how a write waits for the relay when its own invalidation has failed

Redis is trusted throughout. That no process trusts a Redis which has missed an invalidation is the relay's promise, and
is tested with the relay.
"""

from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Protocol, runtime_checkable

from redis.asyncio import Redis

from app.caching import Breaker, Cache, CacheUnavailable, Identity, Lifetimes, RedisClock, Region, Trust
from app.caching.moment import NEVER
from app.lab.ours import Entry, EntryRegion, MakeOfValues
from app.lab.races.stepped_table import SteppedTable
from app.lab.strategy import Holds, Strategy


@runtime_checkable
class Polling(Strategy, Protocol):
    """A strategy whose invalidations are repeated by a relay."""

    async def poll(self) -> None:
        """Runs one poll of the relay."""


class Relayed:
    """A strategy of values: `make` makes it over its own region and the table."""

    holds = Holds.VALUES

    def __init__(self, make: MakeOfValues, redis: Redis, table: SteppedTable, prefix: str, ttl: timedelta) -> None:
        self._table, self._region = table, _region(redis, table, prefix, ttl)
        self._strategy = make(self._region, table)

    async def read(self, key: str) -> int | None:
        """Reads as the strategy does."""
        return await self._strategy.read(key)

    async def write(self, key: str, value: int) -> None:
        """Writes as the strategy does."""
        await self._strategy.write(key, value)

    async def poll(self) -> None:
        """Invalidates the changes in the outbox."""
        changes = await self._table.undone()
        for change in changes:
            await self._region.try_invalidate(change.key, change.version)
        if changes:
            await self._table.done(changes)

    def running(self) -> AbstractAsyncContextManager[None]:
        """Runs what the strategy runs."""
        return self._strategy.running()


def trusting(redis: Redis) -> Cache:
    """Returns a cache that always trusts Redis."""
    trust = Trust()
    breaker = Breaker(trust)
    breaker.reachable = True
    trust.grant(trust.losses, NEVER)
    return Cache(redis, RedisClock(), trust, breaker, Identity(trust))


def _region(redis: Redis, table: SteppedTable, prefix: str, ttl: timedelta) -> EntryRegion:
    region: EntryRegion

    async def settled(key: str) -> None:
        # Stands for the relay of another process, which tries until it succeeds.
        while True:
            try:
                row = await table.load(key)
                await region.try_invalidate(key, row.version if row else 0)
                return
            except (CacheUnavailable, OSError):
                continue

    region = Region(
        trusting(redis),
        prefix,
        Entry,
        lifetimes=Lifetimes(fresh=ttl, stale=timedelta(0), absent=ttl),
        settled=settled,
    )
    return region
