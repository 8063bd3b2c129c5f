"""Write-behind over a list, as it is published. DO NOT COPY: it loses what it was told, and undoes newer writes.

    read    GET · on a miss SELECT, and SETEX
    write   SETEX · RPUSH to the queue
    flush   LPOP up to 100 · one transaction, an UPDATE for each · what fails goes to the queue's end, or after three
            times to a dead-letter list; each second

The defects: LPOP takes the writes out of Redis before the database has them, and a second try comes after newer ones.

    F LPOPs 1, and dies                         the write was acknowledged, and is nowhere

    F LPOPs 1, and the database is away
                                                W SETEXes 2, RPUSHes 2
    F RPUSHes 1 again                           the database gets 2, and then 1

And between SETEX and RPUSH a writer may die: readers get what the database never will. `moved_list_queue.py` beside it
repairs the list; `app.caching.WriteBehind` is what to copy.

In one thing this is kinder than the original, whose loop ends at the first empty queue: node-redis answers null there,
and null has no length.
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
    """A number under a key, which the table gets later."""

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
        """From the cache, else from the table, whose answer is kept."""
        return await get_or_load(self._redis, f"{self._prefix}:{key}", self._ttl, self._table, key)

    async def write(self, key: str, value: int) -> None:
        """Into the cache, and into the queue."""
        await self._redis.set(f"{self._prefix}:{key}", value, ex=self._ttl)
        item = json.dumps({"key": key, "value": value, "ts": time.time()})
        await self._redis.rpush(f"{self._prefix}:queue", item)

    async def flush(self) -> int:
        """Carries a batch, and answers how many writes it took out of the queue."""
        batch: list[bytes] = await self._redis.lpop(f"{self._prefix}:queue", MOST) or []  # type: ignore[assignment]
        if not batch:
            return 0
        writes = [json.loads(item) for item in batch]
        try:
            await self._table.save_each([(write["key"], write["value"]) for write in writes])
        except Exception:  # noqa: BLE001  # As it is published: whatever it is.
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
