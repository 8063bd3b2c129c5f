"""Cache-aside: the cache stands beside the database, and the application asks both.

    read    ask the cache; on a miss the caller's own query asks the database, and the answer is kept
    write   run the caller's write, which commits, and then invalidate (`invalidating.py`)

Use it when the application knows best how to read: one key may need several queries, or other ones on another day. It
is the default; with a `load` that is always the same, `ReadThrough` says it better.

What can go wrong: a write that does not go through `write`, as one in SQL (here the database's own triggers feed a
relay that cannot forget). Without Redis, reads ask the database, a few at a time, and an invalidation takes up to half
a second.
"""

from collections.abc import Awaitable, Callable

from .errors import CacheUnavailable
from .invalidating import Invalidating
from .lease import K
from .reading import Reading, V
from .region import Region
from .single_flight import SingleFlight


class CacheAside(Invalidating[K, V]):
    """A cache that is told nothing of the database."""

    NAME = "cache-aside"

    def __init__(self, region: Region[K, V]) -> None:
        super().__init__(region)
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
