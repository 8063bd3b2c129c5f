"""Write-behind over a list, repaired. COPY for one flusher, and where only the last value of a key counts.

    read    GET · on a miss SELECT, and SET NX
    write   SETEX and RPUSH to the queue, in one script
    flush   LMOVE up to 100 to a processing list · one transaction of UPDATEs · trim them off the processing list

It keeps what `ListQueue` loses: a write leaves Redis only when the database has it.

    F LMOVEs 1, and dies                        the next pass starts with the processing list, and flushes 1

    the database is away                        the writes stay where they are, and so in their order

    R SELECTs 0, and stalls
                                                W SETEXes 1
    R tries to SET 0 NX, but 1 is there

What is left: a second flusher needs its own list, and nothing here decides which flusher takes over whose; a write that
the database refuses holds up all others. `app.caching.WriteBehind` solves both.
"""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from redis.asyncio import Redis

from app.lab.published.flushing import flushing
from app.lab.strategy import Holds, Table

MOST = 100

# KEYS: value, queue. ARGV: ttl in ms, value, item. Both or neither: a writer may die between two commands.
WRITE = "redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1]) redis.call('RPUSH', KEYS[2], ARGV[3])"


class MovedListQueue:
    """A number under a key, which the table is guaranteed to get later."""

    holds = Holds.VALUES

    def __init__(
        self,
        redis: Redis,
        table: Table,
        prefix: str,
        ttl: timedelta,
        *,
        interval: timedelta = timedelta(seconds=1),
    ) -> None:
        self._redis, self._table, self._prefix, self._ttl, self._interval = redis, table, prefix, ttl, interval
        self._write = redis.register_script(WRITE)

    async def read(self, key: str) -> int | None:
        """Reads the cache; on a miss, loads the row and fills the cache unless a writer was quicker."""
        name = f"{self._prefix}:{key}"
        cached = await self._redis.get(name)
        if cached is not None:
            return int(cached)
        row = await self._table.load(key)
        if row is None:
            return None
        await self._redis.set(name, row.value, nx=True, px=self._ttl)
        return row.value

    async def write(self, key: str, value: int) -> None:
        """Writes to the cache and to the queue, in one script."""
        item = json.dumps({"key": key, "value": value, "ts": time.time()})
        milliseconds = self._ttl // timedelta(milliseconds=1)
        await self._write(keys=[f"{self._prefix}:{key}", f"{self._prefix}:queue"], args=[milliseconds, value, item])

    async def flush(self) -> int:
        """Flushes a batch and returns how many writes it took off the processing list. Raises what the table raises,
        and leaves the batch for the next pass."""
        queue, processing = f"{self._prefix}:queue", f"{self._prefix}:processing"
        there = await self._redis.llen(processing)
        while there < MOST and await self._redis.lmove(queue, processing, "LEFT", "RIGHT") is not None:
            there += 1
        batch: list[bytes] = await self._redis.lrange(processing, 0, -1)  # type: ignore[assignment]
        if batch:
            writes = [json.loads(item) for item in batch]
            await self._table.save_many({write["key"]: write["value"] for write in writes})
            await self._redis.ltrim(processing, len(batch), -1)
        return len(batch)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Flushes, and pauses when the queue is empty."""
        async with flushing(self.flush, self._interval):
            yield
