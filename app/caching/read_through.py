"""Read-through: the cache is told once how to read, and loads itself.

    read    ask the cache; on a miss it asks the database itself, and keeps the answer
    write   the caller writes to the database, commits, and then invalidates

Use it when many places read the same thing: how it is loaded stands in one place, and the misses of many readers are
one query. Avoid it when a key needs more than one query, or a load has side effects.

What can go wrong: as with cache-aside, a writer that forgets to invalidate. Without Redis, reads ask the database, a
few at a time, and an invalidation takes up to half a second.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from .batching import Batching
from .errors import CacheUnavailable, Unreadable
from .lease import K
from .observing import Event
from .reading import Outcome, Reading, V
from .region import Region
from .single_flight import SingleFlight

T = TypeVar("T")


class ReadThrough(Generic[K, V]):
    """A cache that is told how to read the database.

    `load` gets distinct keys and answers the rows that exist, by key, or `Unreadable` in place of one.
    """

    def __init__(
        self, region: Region[K, V], load: Callable[[Sequence[K]], Awaitable[Mapping[K, V | Unreadable]]]
    ) -> None:
        async def load_in_order(keys: Sequence[K]) -> Sequence[V | Unreadable | None]:
            rows = await load(keys)
            return [rows.get(key) for key in keys]

        self._region = region
        self._flights = SingleFlight(region)
        self._load: Batching[K, V | None] = Batching(load_in_order, region.start)

    async def get(self, key: K) -> Reading[V]:
        """The value of `key`. Raises LoadTimeout, Overloaded, and what `load` raises."""
        try:
            found = await self._region.find(key)
            if found is None:
                return await self._flights.get(key, self._load.ask)
            self._flights.refresh(key, found, self._load.ask)
            return found
        except CacheUnavailable:
            return await self._flights.bypass(key, self._load.ask)

    async def get_many(self, keys: Sequence[K]) -> list[Reading[V]]:
        """The values of many keys, in their order: one MGET, and one query for all that are missing. Raises what `get`
        does, and Unreadable, when one of them is."""
        readings: list[Reading[V]] = []
        for reading in await self.get_each(keys):
            if isinstance(reading, Unreadable):
                raise reading
            readings.append(reading)
        return readings

    async def get_each(self, keys: Sequence[K]) -> list[Reading[V] | Unreadable]:
        """The same, with `Unreadable` in place of a row that cannot be read."""
        try:
            found = await self._region.find_all(keys)
        except CacheUnavailable:
            return await self._pass(keys)
        missing = []
        for key, reading in zip(keys, found, strict=True):
            if reading is None:
                missing.append(key)
            else:
                self._flights.refresh(key, reading, self._load.ask)
        # The misses of one tick share their lookup, their query and their fill.
        loaded = iter(await _all(self._flights.get(key, self._load.ask) for key in missing))
        return [reading or next(loaded) for reading in found]

    async def _pass(self, keys: Sequence[K]) -> list[Reading[V] | Unreadable]:
        async with self._region.breaker.passing():
            rows = await _all(map(self._load.ask, keys))
        for _row in rows:
            self._region.report(Event.BYPASSED)
        return [row if isinstance(row, Unreadable) else self._region.unkept(row, Outcome.BYPASSED) for row in rows]

    async def invalidate(self, key: K, version: int) -> None:
        """Forgets what is not of `version`. Call it after the database has committed. When it returns, nobody reads an
        older one."""
        await self._region.invalidate(key, version)

    async def finish(self, write: Coroutine[Any, Any, T]) -> T:
        """Does a write with its invalidation to the end, also when whoever asked for it goes away between the two."""
        return await self._region.finish(write)


async def _all(loads: Iterable[Awaitable[T]]) -> list[T | Unreadable]:
    # All are waited for, so that none goes on behind the answer when another fails.
    answers: list[T | Unreadable] = []
    for answer in await asyncio.gather(*loads, return_exceptions=True):
        if isinstance(answer, BaseException) and not isinstance(answer, Unreadable):
            raise answer
        answers.append(answer)
    return answers
