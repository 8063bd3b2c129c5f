"""Cache-aside as published. DO NOT COPY: it keeps an old row for as long as an entry lives.

    read    GET · on a miss SELECT, and SETEX
    write   UPDATE · DEL

The article's read-through wrapper makes the same calls in the same order, so it is not repeated here.

The defect: nothing ties the SETEX to the row that was read.

    R GETs nothing, SELECTs 0, and stalls
                                                W UPDATEs to 1, DELs, and is acknowledged
    R SETEXes 0                                 every reader gets 0 until the entry expires

A writer that dies between UPDATE and DEL leaves the old value, too. Copy `app.caching.CacheAside` instead.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from redis.asyncio import Redis

from app.lab.strategy import Holds, Table


class CacheAside:
    """A number under a key, kept for at most `ttl` after it was read."""

    holds = Holds.VALUES

    def __init__(self, redis: Redis, table: Table, prefix: str, ttl: timedelta) -> None:
        self._redis, self._table, self._prefix, self._ttl = redis, table, prefix, ttl

    async def read(self, key: str) -> int | None:
        """Reads the cache; on a miss, loads the row and fills the cache."""
        return await get_or_load(self._redis, f"{self._prefix}:{key}", self._ttl, self._table, key)

    async def write(self, key: str, value: int) -> None:
        """Writes to the table and deletes the entry; the next reader fills the cache."""
        await self._table.save(key, value)
        await self._redis.delete(f"{self._prefix}:{key}")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Nothing runs in the background."""
        yield


async def get_or_load(redis: Redis, name: str, ttl: timedelta, table: Table, key: str) -> int | None:
    """The article's `getUser`, which its other samples read with, too: returns the number under `name` in Redis, else
    loads the row of `key` and keeps it there for `ttl`.

    redis-py spells SETEX as `set` with `ex`, and SETNX as `set` with `nx`.
    """
    cached = await redis.get(name)
    if cached is not None:
        return int(cached)
    row = await table.load(key)
    if row is None:
        return None
    await redis.set(name, row.value, ex=ttl)
    return row.value
