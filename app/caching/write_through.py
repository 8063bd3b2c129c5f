"""Write-through: the cache knows how to read and how to write. A write reaches both stores or neither.

    read    ask the cache; on a miss, the cache queries the database and keeps the result
    write   lock the row · change it in the database, and remove the value and its lease from Redis · COMMIT · fill

Use it when a value must be read and changed without anyone acting on an old one: a balance, seats. Avoid it for bulk
writes: each write costs an extra lock and an extra round trip to Redis.

The row lock in the database is the fence. A load caches its row only if it could share that lock: then the row was
committed and nobody was changing it. Every later writer removes the value and its lease before it commits.

What can go wrong: Redis is down, or its answer is lost. Then `put` raises `CacheUnavailable` and nothing is saved.
After COMMIT the write is done, whatever Redis does. A stalled writer blocks other writers of that key, but no reader.
"""

import secrets
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from .errors import CacheUnavailable
from .lease import WRITER, K, Locked
from .reading import Reading, V
from .region import Region
from .single_flight import SingleFlight

C = TypeVar("C")
Revoke = Callable[[], Awaitable[None]]


class WriteThrough(Generic[K, C, V]):
    """A cache that knows how to read the database (`load`) and how to write to it (`save`).

    `load` returns the row, None if there is none, or `Locked` if it could not share the row's lock. `save` makes a
    change and returns the resulting row. It holds the row's lock while it calls `revoke`, and commits only after that.
    """

    NAME = "write-through"

    def __init__(
        self,
        region: Region[K, V],
        load: Callable[[K], Awaitable[V | Locked[V] | None]],
        save: Callable[[K, C, Revoke], Awaitable[V | None]],
    ) -> None:
        self._region, self._flights, self._load, self._save = region, SingleFlight(region), load, save

    async def get(self, key: K) -> Reading[V]:
        """Returns the value of `key`. Raises LoadTimeout, Overloaded, and whatever `load` raises."""
        try:
            found = await self._region.find(key)
            if found is None:
                return await self._flights.get(key, self._load)
            self._flights.refresh(key, found, self._load)
            return found
        except CacheUnavailable:
            return await self._flights.bypass(key, self._load)

    async def put(self, key: K, change: C) -> V | None:
        """Makes a change, and returns the new row, None if it is gone. Runs to its end even if the caller goes away.
        Raises CacheUnavailable if nothing was saved because of Redis, and whatever `save` raises."""
        return await self._region.finish(self._put(key, change))

    async def _put(self, key: K, change: C) -> V | None:
        token, revoked, losses = WRITER + secrets.token_hex(8), False, object()

        async def revoke() -> None:
            nonlocal revoked, losses
            revoked, losses = True, self._region.losses(key)
            await self._region.revoke(key, token)

        try:
            value = await self._save(key, change, revoke)
        except Exception:
            if revoked:  # Nothing was changed, or the outcome is unknown. Either way we must not cache a value.
                await self._region.release(key, token)
            raise
        if revoked:  # A repeated change that was already made neither changes nor revokes anything.
            await self._region.fill(key, token, value, losses=losses)
            await self._region.confirm(key, losses)
        return value
