"""What our strategies of values keep in Redis: a region per contestant, and what the shared relay invalidates in them.

<run>/<contestant>/<key>    the outbox's name for a row: the relay finds the region by its prefix
"""

from datetime import timedelta
from functools import partial

from redis.asyncio import Redis

from app.caching import Lifetimes, Region
from app.coherence.settling import Settling
from app.lab.comparison.stores import Stores
from app.lab.ours import Entry, EntryRegion

STALE = timedelta(minutes=10)
ABSENT = timedelta(seconds=30)
RESOURCE = "entries"
"""The outbox's name for the table."""


class Regions:
    """The regions by the prefixes of their rows."""

    def __init__(self, stores: Stores, settling: Settling, ttl: timedelta) -> None:
        self._stores, self._settling, self._ttl = stores, settling, ttl
        self._regions: dict[str, EntryRegion] = {}

    def add(self, redis: Redis, name: str, prefix: str, *, stale: timedelta = STALE) -> EntryRegion:
        """Adds a region whose keys in Redis begin with `name`, and its rows with `prefix`. An old number is kept for
        `stale`, to serve when a load fails."""
        self._regions[prefix] = region = Region(
            self._stores.cache(redis),
            name,
            Entry,
            lifetimes=Lifetimes(fresh=self._ttl, stale=stale, absent=ABSENT),
            settled=partial(self._settled, prefix),
        )
        return region

    async def forget(self, key: str, version: int) -> None:
        """Invalidates a change of the row `key`, for the relay."""
        prefix = "/".join(key.split("/", 2)[:2]) + "/"
        if prefix in self._regions:  # Otherwise it is from another run, whose caches are gone.
            await self._regions[prefix].try_invalidate(key[len(prefix) :], version)

    async def _settled(self, prefix: str, key: str) -> None:
        await self._settling.wait(RESOURCE, prefix + key)
