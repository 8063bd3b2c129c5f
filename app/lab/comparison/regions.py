"""What our strategies of values keep in Redis: a region for each contestant, and what one relay invalidates in them.

<run>/<contestant>/<key>    so the outbox names a row: by its prefix, the relay finds the region
"""

from datetime import timedelta
from functools import partial

from redis.asyncio import Redis

from app.caching import Cache, Lifetimes, Region
from app.coherence.settling import Settling
from app.lab.comparison.stores import Stores
from app.lab.ours import Entry, EntryRegion

STALE = timedelta(minutes=10)
ABSENT = timedelta(seconds=30)
RESOURCE = "entries"
"""So the outbox calls the table."""


class Regions:
    """The regions by the prefixes of their rows."""

    def __init__(self, stores: Stores, settling: Settling, ttl: timedelta) -> None:
        self._stores, self._settling, self._ttl = stores, settling, ttl
        self._regions: dict[str, EntryRegion] = {}

    def add(self, redis: Redis, name: str, prefix: str, *, stale: timedelta = STALE) -> EntryRegion:
        """A region whose keys in Redis begin with `name`, and its rows with `prefix`. An old number is kept for
        `stale`, to be served when a load fails."""
        self._regions[prefix] = region = Region(
            Cache(redis, self._stores.clock, self._stores.breaker, bulkhead=self._stores.bulkhead),
            name,
            Entry,
            lifetimes=Lifetimes(fresh=self._ttl, stale=stale, absent=ABSENT),
            settled=partial(self._settled, prefix),
        )
        return region

    async def forget(self, key: str, version: int) -> None:
        """What the relay does with a change of the row `key`."""
        prefix = "/".join(key.split("/", 2)[:2]) + "/"
        if prefix in self._regions:  # Else it is of another run, whose caches are no more.
            await self._regions[prefix].try_invalidate(key[len(prefix) :], version)

    async def _settled(self, prefix: str, key: str) -> None:
        await self._settling.wait(RESOURCE, prefix + key)
