"""Cache-aside: the cache stands beside the database, and the application asks both.

    read    ask the cache; on a miss, run the caller's query against the database and cache the result
    write   run the caller's write, which commits, and then invalidate (`invalidating.py`)

Use it when the application knows best how to read: one key may need several queries, or different queries at different
times. It is the default. If the `load` is always the same, `ReadThrough` expresses it better.

What can go wrong: a write bypasses `write`, for example in plain SQL. (Here, database triggers feed a relay that sees
every write.) Without Redis, reads query the database, a few at a time. With a relay, a write then waits until nobody
believes the old value; without one, it raises `NotInvalidated`.
"""

from collections.abc import Awaitable, Callable

from .errors import CacheUnavailable
from .invalidating import Invalidating
from .lease import K
from .reading import Reading, V
from .region import Region
from .single_flight import SingleFlight


class CacheAside(Invalidating[K, V]):
    """A cache that knows nothing about the database."""

    NAME = "cache-aside"

    def __init__(self, region: Region[K, V]) -> None:
        super().__init__(region)
        self._flights = SingleFlight(region)

    async def get(self, key: K, query: Callable[[K], Awaitable[V | None]]) -> Reading[V]:
        """Returns the value of `key`, from the cache or from `query`, which returns None if the row does not exist.

        Raises LoadTimeout, Overloaded, and whatever `query` raises.
        """
        try:
            found = await self._region.find(key)
            if found is None:
                # All readers of a missing key share one query, and only the newest committed row is cached.
                return await self._flights.get(key, query)
            self._flights.refresh(key, found, query)
            return found
        except CacheUnavailable:
            return await self._flights.bypass(key, query)
