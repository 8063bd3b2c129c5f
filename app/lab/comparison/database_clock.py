"""How far the database's clock is ahead of this process' clock."""

import time

from app.availability import available
from app.lab.comparison.pool import Pool


async def database_clock(pool: Pool) -> tuple[float, float]:
    """Returns how many seconds the database's clock is ahead of this process' `time.monotonic`, and the largest
    possible error: half of a round trip. (Cristian, "Probabilistic clock synchronization", 1989.)"""
    best = (0.0, float("inf"))
    async with available(), pool.acquire() as connection:
        for _try in range(8):
            began = time.monotonic()
            now = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
            ended = time.monotonic()
            best = min(best, (now - (began + ended) / 2, (ended - began) / 2), key=lambda found: found[1])
    return best
