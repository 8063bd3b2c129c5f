"""Write-through, as stock is cached: the cache knows how to read the table and how to write to it at once.

read    from the cache, which loads on a miss
write   into both stores, or into neither
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app import caching
from app.caching import Locked, Revoke
from app.lab.ours.entry import Entry, EntryRegion, entry, number
from app.lab.ours.locking_table import LockingTable
from app.lab.strategy import Holds


class WriteThrough:
    """Write-through."""

    holds = Holds.VALUES

    def __init__(self, region: EntryRegion, table: LockingTable) -> None:
        self._region, self._table = region, table
        self._cache: caching.WriteThrough[str, int, Entry] = caching.WriteThrough(region, self._load, self._save)

    async def read(self, key: str) -> int | None:
        """Reads from the cache, which loads on a miss."""
        return number((await self._cache.get(key)).value)

    async def write(self, key: str, value: int) -> None:
        """Writes to both stores, or to neither."""
        await self._cache.put(key, value)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keeps alive the loads and writes whose callers have gone."""
        async with self._region:
            yield

    async def _load(self, key: str) -> Entry | Locked[Entry] | None:
        unlocked, row = await self._table.load_shared(key)
        return entry(row) if unlocked else Locked(entry(row))

    async def _save(self, key: str, value: int, revoke: Revoke) -> Entry | None:
        return entry(await self._table.save_locked(key, value, revoke))
