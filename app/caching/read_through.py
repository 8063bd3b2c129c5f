"""Read-through: the cache is told once how to read, and loads itself.

    read    ask the cache; on a miss it asks the database itself, and keeps the answer
    write   the caller writes to the database, commits, and then invalidates

Use it when many places read the same thing: how it is loaded stands in one place, and the misses of many readers are
one query. Avoid it when a key needs more than one query, or a load has side effects.

What can go wrong: as with cache-aside, a writer that forgets to invalidate. Without Redis, reads ask the database.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Generic

from app.caching.batching import Batching
from app.caching.errors import CacheUnavailable
from app.caching.lease import K
from app.caching.reading import Reading, V
from app.caching.region import Region
from app.caching.single_flight import SingleFlight


class ReadThrough(Generic[K, V]):
    """A cache that is told how to read the database.

    `load` gets distinct keys and answers the rows that exist, by key.
    """

    def __init__(self, region: Region[K, V], load: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]) -> None:
        async def load_in_order(keys: Sequence[K]) -> Sequence[V | None]:
            rows = await load(keys)
            return [rows.get(key) for key in keys]

        self._region = region
        self._flights = SingleFlight(region)
        self._load = Batching(load_in_order, region.start)

    async def get(self, key: K) -> Reading[V]:
        """The value of `key`. Raises LoadTimeout, and what `load` raises."""
        try:
            found = await self._region.find(key)
            if found is None:
                found = await self._flights.get(key, self._load.ask)
            return found
        except CacheUnavailable:
            return await self._flights.bypass(key, self._load.ask)

    async def get_many(self, keys: Sequence[K]) -> list[Reading[V]]:
        """The values of many keys, in their order: one MGET, and one query for all that are missing."""
        try:
            found = await self._region.find_all(keys)
        except CacheUnavailable:
            return await _all(self._flights.bypass(key, self._load.ask) for key in keys)
        missing = [key for key, reading in zip(keys, found, strict=True) if reading is None]
        # The misses of one tick share their lookup, their query and their fill.
        loaded = iter(await _all(self._flights.get(key, self._load.ask) for key in missing))
        return [reading or next(loaded) for reading in found]

    async def invalidate(self, key: K, version: int) -> None:
        """Forgets what is not of `version`. Call it after the database has committed."""
        await self._region.invalidate(key, version)


async def _all(loads: Iterable[Awaitable[Reading[V]]]) -> list[Reading[V]]:
    # All are waited for, so that none goes on behind the answer when another fails.
    answers = await asyncio.gather(*loads, return_exceptions=True)
    readings = [answer for answer in answers if isinstance(answer, Reading)]
    if len(readings) < len(answers):
        raise next(answer for answer in answers if isinstance(answer, BaseException))
    return readings
