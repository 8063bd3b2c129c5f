"""A strategy over a real Redis and a table of numbers, whose keys all have 0."""

from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest
from redis.asyncio import Redis

from app.embedded import Endpoints
from tests.lab.published.numbers import Numbers

PREFIX, TTL = "lab", timedelta(minutes=5)


@pytest.fixture
async def numbers(endpoints: Endpoints) -> AsyncIterator[Numbers]:
    """The table, with the keys k and l, in a schema that ends with the test."""
    async with asyncpg.create_pool(
        endpoints.database_url, min_size=1, max_size=4, server_settings={"search_path": "published"}
    ) as pool:
        await pool.execute("CREATE SCHEMA published")
        await pool.execute("CREATE TABLE numbers (key text PRIMARY KEY, value bigint, version bigint)")
        await pool.execute("INSERT INTO numbers VALUES ('k', 0, 1), ('l', 0, 1)")
        try:
            yield Numbers(pool)
        finally:
            await pool.execute("DROP SCHEMA published CASCADE")


@pytest.fixture
def arguments(redis: Redis, numbers: Numbers) -> tuple[Redis, Numbers, str, timedelta]:
    """What a strategy is made of: each one that is made is another process."""
    return redis, numbers, PREFIX, TTL


Arguments = tuple[Redis, Numbers, str, timedelta]
