"""Write-behind over a list, as published. DO NOT COPY: it loses acknowledged writes, and undoes newer ones.

    read    GET · on a miss SELECT, and SETEX
    write   SETEX · RPUSH to the queue
    flush   LPOP up to 100 · one transaction, an UPDATE for each · what fails goes to the end of the queue, or after
            three retries to a dead-letter list; every second

The defects: LPOP removes the writes from Redis before the database has them, and a retry comes after newer writes.

    F LPOPs 1, and dies                         the write was acknowledged, and is gone

    F LPOPs 1, and the database is away
                                                W SETEXes 2, RPUSHes 2
    F RPUSHes 1 again                           the database gets 2, and then 1

A writer may also die between SETEX and RPUSH: readers get what the database never will. `moved_list_queue.py` beside it
repairs the list. Copy `app.caching.WriteBehind` instead.

In one respect this is kinder than the original, whose loop ends at the first empty queue: node-redis returns null
there, and null has no length.
"""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from redis.asyncio import Redis

from app.lab.published.cache_aside import get_or_load
from app.lab.published.flushing import flushing
from app.lab.strategy import Holds, Table

MOST = 100
RETRIES = 3


class ListQueue:
    """A number under a key, which is flushed to the table later."""

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

    async def read(self, key: str) -> int | None:
        """Reads the cache; on a miss, loads the row and fills the cache."""
        return await get_or_load(self._redis, f"{self._prefix}:{key}", self._ttl, self._table, key)

    async def write(self, key: str, value: int) -> None:
        """Writes to the cache, then to the queue."""
        await self._redis.set(f"{self._prefix}:{key}", value, ex=self._ttl)
        item = json.dumps({"key": key, "value": value, "ts": time.time()})
        await self._redis.rpush(f"{self._prefix}:queue", item)

    async def flush(self) -> int:
        """Flushes a batch and returns how many writes it took from the queue."""
        batch: list[bytes] = await self._redis.lpop(f"{self._prefix}:queue", MOST) or []  # type: ignore[assignment]
        if not batch:
            return 0
        writes = [json.loads(item) for item in batch]
        try:
            await self._table.save_each([(write["key"], write["value"]) for write in writes])
        except Exception:  # noqa: BLE001  # As published: any error.
            for item, write in zip(batch, writes, strict=True):
                if write.get("retries", 0) < RETRIES:
                    write["retries"] = write.get("retries", 0) + 1
                    await self._redis.rpush(f"{self._prefix}:queue", json.dumps(write))
                else:
                    await self._redis.rpush(f"{self._prefix}:dead-letter", item)
        return len(batch)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Flushes, and pauses when the queue is empty."""
        async with flushing(self.flush, self._interval):
            yield
