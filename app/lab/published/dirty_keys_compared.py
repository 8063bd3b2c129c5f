"""Write-behind by dirty marks, repaired. COPY for one flusher, and a Redis that does not lose its counters.

    read    GET · on a miss SELECT, and SET NX
    write   INCRBY and a new mark, in one script, after a SET NX where there is no counter yet
    sync    for each dirty key: read the mark, GET · UPDATE to that number · clear the mark, if it is the same

A mark counts the changes since the key was clean, so clearing it detects any write that came after it was read.

    S reads mark 1, GETs 1, UPDATEs to 1
                                                W INCRs to 2, marks 2, and is acknowledged
    S tries to clear mark 1, but it is 2        the next pass flushes 2

What is left: it flushes totals. Of two concurrent passes, one may write the older total last, and a Redis that has lost
a counter starts again from the table. `app.caching.WriteBehind` flushes increments.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from redis.asyncio import Redis

from app.lab.published.flushing import flushing
from app.lab.strategy import Holds, Table

# KEYS: counter, marks. ARGV: key. Both or neither: a writer may die between two commands.
ADD = "redis.call('INCRBY', KEYS[1], 1) redis.call('HINCRBY', KEYS[2], ARGV[1], 1)"
# KEYS: marks. ARGV: key, mark. Clears the mark only if nothing has changed since it was read.
CLEAR = "if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end"


class DirtyKeysCompared:
    """A counter under a key, which is flushed to the table later. A counter does not expire: `ttl` is ignored."""

    holds = Holds.COUNTS

    def __init__(
        self,
        redis: Redis,
        table: Table,
        prefix: str,
        ttl: timedelta,
        *,
        interval: timedelta = timedelta(seconds=1),
    ) -> None:
        self._redis, self._table, self._prefix, self._interval = redis, table, prefix, interval
        self._add, self._clear = redis.register_script(ADD), redis.register_script(CLEAR)

    async def read(self, key: str) -> int | None:
        """Reads Redis; on a miss, loads the row and fills Redis unless another caller was quicker."""
        counter = await self._redis.get(f"{self._prefix}:{key}")
        return await self._begin(key) if counter is None else int(counter)

    async def write(self, key: str, value: int) -> None:
        """Adds one, in Redis."""
        if not await self._redis.exists(f"{self._prefix}:{key}"):
            await self._begin(key)
        await self._add(keys=[f"{self._prefix}:{key}", f"{self._prefix}:dirty"], args=[key])

    async def flush(self) -> int:
        """Flushes what is dirty and returns how many keys that were. Raises what the table raises; the key stays
        marked."""
        dirty = await self._redis.hgetall(f"{self._prefix}:dirty")
        for raw, mark in dirty.items():
            key = raw.decode() if isinstance(raw, bytes) else str(raw)
            # The mark was read first, so the counter is as new as the mark, or newer.
            counter = await self._redis.get(f"{self._prefix}:{key}")
            await self._table.save(key, int(counter or 0))
            await self._clear(keys=[f"{self._prefix}:dirty"], args=[key, mark])
        return len(dirty)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Syncs, and pauses when nothing is dirty."""
        async with flushing(self.flush, self._interval):
            yield

    async def _begin(self, key: str) -> int | None:
        name = f"{self._prefix}:{key}"
        row = await self._table.load(key)
        if row is None:
            return None
        await self._redis.set(name, row.value, nx=True)
        return row.value
