"""A strategy over a real Redis and a table of numbers, in which every key starts at 0."""

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
    """The table, with the keys k and l, in a schema that is dropped after the test."""
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
    """The arguments of a strategy. Each strategy made from them stands for another process."""
    return redis, numbers, PREFIX, TTL


Arguments = tuple[Redis, Numbers, str, timedelta]
