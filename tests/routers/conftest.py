"""The application as it is run, once for all tests of this folder, and a table with something in it."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from app.embedded import Endpoints
from tests.service import Service, serving

Contents = dict[str, list[tuple[object, ...]]]


@pytest.fixture(scope="session")
async def uvicorn(servers: Endpoints) -> AsyncIterator[Service]:
    """One process for the session."""
    async with serving(servers.redis_url, servers.database_url) as service:
        yield service


@pytest.fixture
async def service(uvicorn: Service, endpoints: Endpoints) -> Service:
    """The same process, its stores emptied."""
    return uvicorn


@pytest.fixture
async def rows(sql: asyncpg.Connection) -> Contents:
    """User 1, product KETTLE-1, and what the tables hold now: a refused request must leave it as it is."""
    async with sql.transaction():
        await sql.execute("INSERT INTO users (id, name, email) VALUES (1, 'Ada Lovelace', 'ada@example.com')")
        await sql.execute("INSERT INTO products (sku, name, price) VALUES ('KETTLE-1', 'Kettle', '19.90')")
        # Nobody has read them, so no relay need invalidate them: that would come between a test and its first read.
        await sql.execute("UPDATE outbox SET done_at = now()")
    return await contents(sql)


async def contents(sql: asyncpg.Connection) -> Contents:
    """Everything that the two resources have written."""
    queries = {
        "users": "SELECT * FROM users ORDER BY id",
        "products": "SELECT * FROM products ORDER BY sku",
        # Not when it was relayed: that is the relay's doing.
        "outbox": "SELECT id, resource, key, version FROM outbox ORDER BY id",
    }
    return {table: [tuple(row) for row in await sql.fetch(query)] for table, query in queries.items()}
