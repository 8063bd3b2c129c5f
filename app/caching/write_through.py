"""Write-through: the cache is told how to read and how to write, and a write is in both stores or in neither.

    read    ask the cache; on a miss it asks the database itself, and keeps the answer
    write   lock the row · change it in the database, and take value and lease away in Redis · COMMIT · fill

Use it when a value must be read and changed without anybody acting on an old one: a balance, seats. Avoid it when
writes come in bulk: each costs a lock and a round trip to Redis more.

The row's lock in the database is the fence. A load keeps its row only if it could share that lock, so what it read was
committed and nobody was changing it; every later writer takes value and lease away before it commits.

What can go wrong: Redis is away, or its answer is lost: `CacheUnavailable`, and nothing is saved. After COMMIT the
write is done, whatever Redis does. A writer that stalls holds up other writers of that key, and no reader.
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
    """A cache that is told how to read the database (`load`), and how to write to it (`save`).

    `load` answers the row, None when there is none, `Locked` when it could not share the row's lock. `save` makes a
    change, and answers the row then. It holds the row's lock when it calls `revoke`, and commits after that returned.
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
        """The value of `key`. Raises LoadTimeout, Overloaded, and what `load` raises."""
        try:
            found = await self._region.find(key)
            if found is None:
                return await self._flights.get(key, self._load)
            self._flights.refresh(key, found, self._load)
            return found
        except CacheUnavailable:
            return await self._flights.bypass(key, self._load)

    async def put(self, key: K, change: C) -> V | None:
        """Makes a change, to its end whoever goes away, and answers the row as it is now, None when it is gone. Raises
        CacheUnavailable when nothing was saved because of Redis, and what `save` raises."""
        return await self._region.finish(self._put(key, change))

    async def _put(self, key: K, change: C) -> V | None:
        token, revoked, losses = WRITER + secrets.token_hex(8), False, 0

        async def revoke() -> None:
            nonlocal revoked, losses
            revoked, losses = True, self._region.breaker.losses
            await self._region.revoke(key, token)

        try:
            value = await self._save(key, change, revoke)
        except Exception:
            if revoked:  # Nothing was changed, or nobody knows: either way it is not ours to keep a value.
                await self._region.release(key, token)
            raise
        if revoked:  # A repetition of what was done before changes nothing, and takes nothing away.
            # A Redis that has restarted since may have the old value back: it is of another run, and no hit.
            await self._region.fill(key, token, value, losses=losses)
        return value
