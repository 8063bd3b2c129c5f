"""One process of a stampede: it reads a scheme, a key and a moment from stdin, and prints how long its readers waited.

ours           this library's read-through
cashews        its decorator, which protects only within one process
cashews_lock   with `lock=True`, which protects across processes
setnx          SETNX; without the lock a reader waits 50 ms, checks again, and then loads: the usual recipe
"""

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import asyncpg
import uvloop
from pydantic import BaseModel, ConfigDict
from redis.asyncio import Redis
from redis.utils import str_if_bytes

from app.caching import Lifetimes, ReadThrough, Region, open_cache
from tests.benchmarks.peers.cashews_cache import cache_at, cached

HOUR = timedelta(hours=1)


class Row(BaseModel):
    """The row that is loaded."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: int


class Source:
    """The database, and how often it was queried."""

    def __init__(self, pool: asyncpg.Pool, seconds: float) -> None:
        self._pool, self._seconds = pool, seconds
        self.loads = 0

    async def load(self, key: str) -> str:
        """Runs a query that takes its time."""
        self.loads += 1
        return str(await self._pool.fetchval("SELECT $1::text FROM pg_sleep($2)", key, self._seconds))

    async def load_many(self, keys: Sequence[str]) -> dict[str, Row]:
        """Loads rows in the same way, for our cache."""
        return {key: Row(name=await self.load(key), version=1) for key in keys}


Read = Callable[[str], Awaitable[str]]


def with_cashews(url: str, source: Source, *, lock: bool) -> Read:
    """Reads with cashews' decorator."""

    @cached(cache_at(url), "lock:{key}" if lock else "plain:{key}", lock=lock)
    async def read(key: str) -> str:
        return await source.load(key)

    return read


def with_setnx(redis: Redis, source: Source) -> Read:
    """Reads as the recipe does."""

    async def read(key: str) -> str:
        name, lock = f"setnx:{key}", f"setnx-lock:{key}"
        if found := await redis.get(name):
            return str_if_bytes(found)
        locked = await redis.set(lock, "1", nx=True, ex=2)
        if not locked:
            await asyncio.sleep(0.05)
            if found := await redis.get(name):
                return str_if_bytes(found)
        try:
            value = await source.load(key)
            await redis.set(name, value, ex=300)
            return value
        finally:
            await redis.delete(lock)

    return read


def with_ours(cache: ReadThrough[str, Row]) -> Read:
    """Reads with the library."""

    async def read(key: str) -> str:
        row = (await cache.get(key)).value
        return "" if row is None else row.name

    return read


async def run(redis_url: str, database_url: str, seconds: float) -> None:
    """Answers questions until stdin ends."""
    async with (
        asyncpg.create_pool(database_url, min_size=8, max_size=8) as pool,
        open_cache(redis_url, timeout=timedelta(seconds=5)) as cache,
        # As many connections as readers: only the scheme is measured.
        Redis.from_url(redis_url, max_connections=500) as plain,
        Region[str, Row](cache, "stampede", Row, lifetimes=Lifetimes(fresh=HOUR, stale=HOUR, absent=HOUR)) as region,
    ):
        source = Source(pool, seconds)
        schemes = {
            "ours": with_ours(ReadThrough(region, load=source.load_many)),
            "cashews": with_cashews(redis_url, source, lock=False),
            "cashews_lock": with_cashews(redis_url, source, lock=True),
            "setnx": with_setnx(plain, source),
        }
        # As the service does at its start. Otherwise the garbage collectors of all four processes scan all imported
        # objects during the same stampede, and the scheme that it hits waits for a tenth of a second.
        gc.collect()
        gc.freeze()
        print("ready", flush=True)
        while question := await asyncio.to_thread(sys.stdin.readline):
            said = json.loads(question)
            source.loads = 0
            await asyncio.sleep(said["begin"] - time.monotonic())
            took = await asyncio.gather(*(_timed(schemes[said["scheme"]], said["key"]) for _ in range(said["readers"])))
            print(json.dumps({"loads": source.loads, "took": took}), flush=True)


async def _timed(read: Read, key: str) -> float:
    began = time.perf_counter()
    found = await read(key)
    if found != key:
        sys.exit(f"{key} was answered with {found!r}.")
    return time.perf_counter() - began


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(run(sys.argv[1], sys.argv[2], float(sys.argv[3])))
        except KeyboardInterrupt:
            sys.exit(130)
