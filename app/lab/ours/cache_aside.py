"""Cache-aside, as users are cached: the cache knows nothing of the table.

read    from the cache, else by our own query
write   into the table, then invalidates
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from app import caching
from app.lab.ours.entry import Entry, EntryRegion, entry, number, versions
from app.lab.strategy import Holds, Table


class CacheAside:
    """Cache-aside."""

    holds = Holds.VALUES

    def __init__(self, region: EntryRegion, table: Table) -> None:
        self._region, self._table = region, table
        self._cache = caching.CacheAside(region)

    async def read(self, key: str) -> int | None:
        """Reads from the cache, else by our own query."""
        return number((await self._cache.get(key, self._query)).value)

    async def write(self, key: str, value: int) -> None:
        """Writes to the table, then invalidates."""
        await self._cache.write(self._table.save(key, value), partial(versions, key))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keeps alive the loads whose readers have gone."""
        async with self._region:
            yield

    async def _query(self, key: str) -> Entry | None:
        return entry(await self._table.load(key))
