"""Write-through as it is often described: both stores are written at the same time, and it is done when both answered.

    read    GET · on a miss SELECT, and SET
    write   UPDATE in Postgres ∥ SET in Redis

It is not linearizable, even without any failure: nothing makes the two stores apply two writes in the same order, and
nothing keeps a reader from bringing an old row back. It is here so that the checker has something to find.
"""

import asyncio
from datetime import timedelta

import asyncpg
from redis.asyncio import Redis

from tests.histories.linearizability.operation import Answer


class ConcurrentWriteThrough:
    """The same calls as the service's, in this process. Cached values expire after `ttl`."""

    def __init__(self, redis: Redis, postgres: asyncpg.Pool, *, ttl: timedelta = timedelta(minutes=5)) -> None:
        self._redis, self._postgres, self._ttl = redis, postgres, ttl

    async def read(self, sku: str) -> Answer:
        """Reads from the cache, which is filled on a miss."""
        quantity = await self._quantity(sku)
        return Answer(404) if quantity is None else Answer(200, quantity)

    async def put(self, sku: str, quantity: int) -> Answer:
        """Writes to both stores at once."""
        created, _ = await asyncio.gather(
            self._postgres.fetchval(
                "INSERT INTO stock (sku, quantity) VALUES ($1, $2)"
                " ON CONFLICT (sku) DO UPDATE SET quantity = $2 RETURNING xmax = 0",
                sku,
                quantity,
            ),
            self._set(sku, quantity),
        )
        return Answer(201 if created else 200, quantity)

    async def adjust(self, sku: str, delta: int) -> Answer:
        """Adjusts the stock. The sum has to be known before both stores can be written."""
        available = await self._quantity(sku)
        if available is None:
            return Answer(404)
        if available + delta < 0:
            return Answer(409, available=available)
        await asyncio.gather(
            self._postgres.execute("UPDATE stock SET quantity = $2 WHERE sku = $1", sku, available + delta),
            self._set(sku, available + delta),
        )
        return Answer(200, available + delta)

    async def delete(self, sku: str) -> Answer:
        """Deletes from both stores at once."""
        done, _ = await asyncio.gather(
            self._postgres.execute("DELETE FROM stock WHERE sku = $1", sku), self._redis.delete(f"naive:{sku}")
        )
        return Answer(204 if done == "DELETE 1" else 404)

    async def _quantity(self, sku: str) -> int | None:
        cached = await self._redis.get(f"naive:{sku}")
        if cached is not None:
            return int(cached)
        quantity = await self._postgres.fetchval("SELECT quantity FROM stock WHERE sku = $1", sku)
        if quantity is None:
            return None
        await self._set(sku, quantity)
        return int(quantity)

    async def _set(self, sku: str, quantity: int) -> None:
        await self._redis.set(f"naive:{sku}", quantity, px=self._ttl)
