"""A Redis with Sentinels and a database of the test's own: what one test does to them, no other test sees."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from app.embedded import Endpoints
from tests.faults.watched_redis import WatchedRedis
from tests.migrated_database import migrated_database
from tests.topologies.suite import pytest_generate_tests as pytest_generate_tests
from tests.topologies.suite import topology as topology
from tests.topologies.suite import ways as ways
from tests.topologies.ways import Ways


@pytest.fixture
async def watched() -> AsyncIterator[WatchedRedis]:
    """A primary, a replica, and three Sentinels."""
    async with WatchedRedis.started() as watched:
        yield watched


@pytest.fixture
async def fresh(servers: Endpoints) -> AsyncIterator[str]:
    """The URL of a new, migrated database."""
    async with migrated_database(servers.database_url) as database_url:
        yield database_url


@pytest.fixture
async def database_url(fresh: str, ways: Ways) -> str:
    """What an instance names to reach it."""
    return await ways.database(fresh)


@pytest.fixture
async def sql(fresh: str) -> AsyncIterator[asyncpg.Connection]:
    """An operator's connection to it, as with psql."""
    connection = await asyncpg.connect(fresh)
    yield connection
    await connection.close()
