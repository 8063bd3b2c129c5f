"""A Redis with Sentinels and a database of the test's own: what one test does to them, no other test sees."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from app.embedded import Endpoints
from tests.faults.watched_redis import WatchedRedis
from tests.migrated_database import migrated_database


@pytest.fixture
async def watched() -> AsyncIterator[WatchedRedis]:
    """A primary, a replica, and three Sentinels."""
    async with WatchedRedis.started() as watched:
        yield watched


@pytest.fixture
async def database_url(servers: Endpoints) -> AsyncIterator[str]:
    """A new, migrated database."""
    async with migrated_database(servers.database_url) as database_url:
        yield database_url


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """An operator's connection to it, as with psql."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()
