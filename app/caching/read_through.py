"""Read-through: the cache is configured once with a `load`, and loads by itself.

    read    ask the cache; on a miss, the cache queries the database and keeps the result
    write   run the caller's write, which commits, and then invalidate (`invalidating.py`)

Use it when many places read the same thing: the loading code is in one place, and the misses of many readers become one
query. Avoid it when a key needs more than one query, or when a load has side effects.

What can go wrong: as with cache-aside, a write bypasses `write`. Without Redis, reads query the database, a few at a
time. With a relay, a write then waits until nobody believes the old value; without one, it raises `NotInvalidated`.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from .batching import Batching, each
from .errors import CacheUnavailable, Unreadable
from .invalidating import Invalidating
from .lease import K
from .observing import Event
from .reading import Outcome, Reading, V
from .region import Region
from .single_flight import SingleFlight


class ReadThrough(Invalidating[K, V]):
    """A cache that knows how to read the database.

    `load` receives distinct keys and returns the rows that exist, by key, with `Unreadable` in place of a row that
    cannot be read.
    """

    NAME = "read-through"

    def __init__(
        self, region: Region[K, V], load: Callable[[Sequence[K]], Awaitable[Mapping[K, V | Unreadable]]]
    ) -> None:
        async def load_in_order(keys: Sequence[K]) -> Sequence[V | Unreadable | None]:
            rows = await load(keys)
            return [rows.get(key) for key in keys]

        super().__init__(region)
        self._flights = SingleFlight(region)
        self._load: Batching[K, V | None] = Batching(load_in_order, region.start)

    async def get(self, key: K) -> Reading[V]:
        """Returns the value of `key`. Raises LoadTimeout, Overloaded, and whatever `load` raises."""
        try:
            found = await self._region.find(key)
            if found is None:
                return await self._flights.get(key, self._load.ask)
            self._flights.refresh(key, found, self._load.ask)
            return found
        except CacheUnavailable:
            return await self._flights.bypass(key, self._load.ask)

    async def get_many(self, keys: Sequence[K]) -> list[Reading[V] | Unreadable]:
        """Returns the values of many keys, in their order, with `Unreadable` in place of a row that cannot be read. It
        takes one MGET, and one query for all missing keys. Raises what `get` raises."""
        try:
            found = await self._region.find_all(keys)
        except CacheUnavailable:
            return await self._bypass(keys)
        missing = []
        for key, reading in zip(keys, found, strict=True):
            if reading is None:
                missing.append(key)
            else:
                self._flights.refresh(key, reading, self._load.ask)
        # The misses of one event-loop tick share one lookup, one query and one fill.
        loaded = iter(await each(self._flights.get(key, self._load.ask) for key in missing))
        return [reading or next(loaded) for reading in found]

    async def _bypass(self, keys: Sequence[K]) -> list[Reading[V] | Unreadable]:
        async with self._region.bulkhead.turn():
            rows = await each(map(self._load.ask, keys))
        for _row in rows:
            self._region.report(Event.BYPASSED)
        return [row if isinstance(row, Unreadable) else self._region.unkept(row, Outcome.BYPASSED) for row in rows]
