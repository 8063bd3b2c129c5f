"""The application as a real service, once for all tests of this folder, and tables with some rows."""

from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest
from redis.asyncio import Redis

from app.caching import open_redis
from app.embedded import Endpoints
from tests.conftest import empty
from tests.eventually import eventually
from tests.migrated_database import migrated_database
from tests.service import Service, serving

Contents = dict[str, list[tuple[object, ...]]]


@pytest.fixture(scope="session")
async def uvicorn_endpoints(servers: Endpoints) -> AsyncIterator[Endpoints]:
    """The service's own stores, on the same servers. The service runs until the session ends; on the stores of other
    tests, it would flush their page views."""
    async with migrated_database(servers.database_url) as database_url:
        yield Endpoints(servers.redis_url.replace("?db=0", "?db=1"), database_url)


@pytest.fixture(scope="session")
async def uvicorn(uvicorn_endpoints: Endpoints) -> AsyncIterator[Service]:
    """One process for the session."""
    async with serving(uvicorn_endpoints.redis_url, uvicorn_endpoints.database_url) as service:
        yield service


@pytest.fixture
async def endpoints(request: pytest.FixtureRequest, endpoints: Endpoints, uvicorn_endpoints: Endpoints) -> Endpoints:
    """The emptied stores of the test. For a test that uses `service`, these are the stores of `service`."""
    if "service" not in request.fixturenames:
        return endpoints
    async with open_redis(uvicorn_endpoints.redis_url, timeout=timedelta(seconds=10), connections=1) as redis:
        # Pending views of the previous test would arrive in the emptied database.
        async def nothing_waits() -> bool:
            return await waiting(redis) == []

        await eventually(nothing_waits)
    await empty(uvicorn_endpoints)
    return uvicorn_endpoints


@pytest.fixture
async def service(uvicorn: Service, endpoints: Endpoints) -> Service:
    """The process of the session, with emptied stores."""
    return uvicorn


@pytest.fixture
async def rows(sql: asyncpg.Connection) -> Contents:
    """Inserts user 1, product KETTLE-1 with 30 pieces, and 7 views of home. Returns the contents of the tables, which a
    refused request must not change."""
    async with sql.transaction():
        await sql.execute("INSERT INTO users (id, name, email) VALUES (1, 'Ada Lovelace', 'ada@example.com')")
        await sql.execute("INSERT INTO products (sku, name, price) VALUES ('KETTLE-1', 'Kettle', '19.90')")
        await sql.execute("INSERT INTO stock (sku, quantity) VALUES ('KETTLE-1', 30)")
        await sql.execute("INSERT INTO page_views (page, views) VALUES ('home', 7)")
        # Nothing has cached these rows, so the relay need not invalidate them. It could do so just when a test makes
        # its first read.
        await sql.execute("UPDATE outbox SET done_at = now()")
    return await contents(sql)


async def contents(sql: asyncpg.Connection) -> Contents:
    """Returns everything that the resources have written to Postgres."""
    queries = {
        "users": "SELECT * FROM users ORDER BY id",
        "products": "SELECT * FROM products ORDER BY sku",
        "stock": "SELECT * FROM stock ORDER BY sku",
        "stock_adjustments": "SELECT * FROM stock_adjustments ORDER BY sku, key",
        "page_views": "SELECT * FROM page_views ORDER BY page",
        "dead_letters": "SELECT * FROM dead_letters ORDER BY id",
        # Without the time of relaying, which the relay sets.
        "outbox": "SELECT id, resource, key, version FROM outbox ORDER BY id",
    }
    return {table: [tuple(row) for row in await sql.fetch(query)] for table, query in queries.items()}


async def waiting(redis: Redis) -> list[object]:
    """Returns the entries in Redis that wait to be flushed to Postgres."""
    streams = [await redis.xrange(f"views:{{{number}}}") for number in range(4)]
    return [entry for stream in streams for entry in stream or ()]
