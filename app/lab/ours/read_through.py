"""Read-through, as products are cached: the cache knows how to read the table.

read    from the cache, which loads on a miss: many misses become one query
write   into the table, then invalidates
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

from app import caching
from app.lab.ours.entry import Entry, EntryRegion, number, versions
from app.lab.ours.locking_table import LockingTable
from app.lab.strategy import Holds


class ReadThrough:
    """Read-through."""

    holds = Holds.VALUES

    def __init__(self, region: EntryRegion, table: LockingTable) -> None:
        self._region, self._table = region, table
        self._cache = caching.ReadThrough(region, self._load)

    async def read(self, key: str) -> int | None:
        """Reads from the cache, which loads on a miss."""
        return number((await self._cache.get(key)).value)

    async def write(self, key: str, value: int) -> None:
        """Writes to the table, then invalidates."""
        await self._cache.write(self._table.save(key, value), partial(versions, key))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keeps alive the loads whose readers have gone."""
        async with self._region:
            yield

    async def _load(self, keys: Sequence[str]) -> Mapping[str, Entry]:
        rows = await self._table.load_many(keys)
        return {key: Entry(value=row.value, version=row.version) for key, row in rows.items()}
