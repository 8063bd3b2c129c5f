"""Cache-aside: the cache stands beside the database, and the application asks both.

    read    ask the cache; on a miss the caller's own query asks the database, and the answer is kept
    write   the caller writes to the database, commits, and then invalidates

Use it when the application knows best how to read: one key may need several queries, or other ones on another day. It
is the default; with a `load` that is always the same, `ReadThrough` says it better.

What can go wrong: a writer that forgets to invalidate (here the database's own triggers feed a relay that
cannot forget). Without Redis, reads ask the database, a few at a time, and an invalidation takes up to half a second.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from .errors import CacheUnavailable
from .lease import K
from .reading import Reading, V
from .region import Region
from .single_flight import SingleFlight

T = TypeVar("T")


class CacheAside(Generic[K, V]):
    """A cache that is told nothing of the database."""

    def __init__(self, region: Region[K, V]) -> None:
        self._region = region
        self._flights = SingleFlight(region)

    async def get(self, key: K, query: Callable[[K], Awaitable[V | None]]) -> Reading[V]:
        """The value of `key`, from the cache or from `query`, which answers None when there is no such row.

        Raises LoadTimeout, Overloaded, and what `query` raises.
        """
        try:
            found = await self._region.find(key)
            if found is None:
                # All readers of a missing key share one query, and only the newest committed row is kept.
                return await self._flights.get(key, query)
            self._flights.refresh(key, found, query)
            return found
        except CacheUnavailable:
            return await self._flights.bypass(key, query)

    async def invalidate(self, key: K, version: int) -> None:
        """Forgets what is not of `version`. Call it after the database has committed, never before: a reader would
        load the old row and keep it. When it returns, nobody reads an older one."""
        await self._region.invalidate(key, version)

    async def finish(self, write: Coroutine[Any, Any, T]) -> T:
        """Does a write with its invalidation to the end, also when whoever asked for it goes away between the two."""
        return await self._region.finish(write)
