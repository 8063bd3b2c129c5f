"""Postgres behind PgBouncer in session mode: the service works as without it, and its limits hold."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest

from app.connection import connect
from app.embedded import Endpoints
from app.schema import migrate
from app.settings import Settings
from tests.eventually import eventually
from tests.faults.another_redis import another_redis
from tests.faults.pgbouncer import pgbouncer
from tests.fresh_database import fresh_database
from tests.in_process import application

LIMITS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "default_transaction_isolation")


@pytest.fixture
async def stores(servers: Endpoints) -> AsyncIterator[Endpoints]:
    """An empty Redis, and an empty database behind PgBouncer."""
    async with (
        another_redis() as redis_url,
        fresh_database(servers.database_url) as database_url,
        pgbouncer(database_url) as pooled,
    ):
        yield Endpoints(redis_url, pooled)


@pytest.fixture
def settings(stores: Endpoints) -> Settings:
    return Settings(_env_file=None, redis_url=stores.redis_url, database_url=stores.database_url)


async def is_ready(client: httpx.AsyncClient) -> bool:
    return bool((await client.get("/health/ready")).json()["status"] == "ready")


async def test_all_four_strategies_work_behind_a_pooler_and_so_do_the_migrations(settings: Settings) -> None:
    assert settings.database_url is not None
    await asyncio.to_thread(migrate, settings.database_url)
    async with application(settings) as client:
        await eventually(lambda: is_ready(client))
        user = await client.post("/users", json={"name": "Ada", "email": "ada@example.com"})
        await client.post("/products", json={"sku": "CUP", "name": "Cup", "price": "7.50"})
        await client.put("/inventory/CUP", json={"quantity": 9})
        path = f"/users/{user.json()['id']}"
        for read in (path, "/products/CUP", "/inventory/CUP"):
            assert [(await client.get(read)).status_code for _ in range(2)] == [200, 200], read
            assert "; hit" in (await client.get(read)).headers["cache-status"]
        assert (await client.patch(path, json={"name": "Grace"})).status_code == 200
        assert (await client.get(path)).json()["name"] == "Grace"
        assert (await client.post("/inventory/CUP/adjustments", json={"delta": -2})).json()["quantity"] == 7
        assert (await client.post("/page-views/home", json={"count": 5})).status_code == 202
        sql = await asyncpg.connect(settings.database_url)

        async def is_flushed() -> bool:
            return bool(await sql.fetchval("SELECT views FROM page_views WHERE page = 'home'") == 5)

        await eventually(is_flushed)
        await sql.close()
        assert await is_ready(client)


async def test_the_limits_of_a_connection_hold_behind_a_pooler(settings: Settings) -> None:
    """PgBouncer refuses such limits among the parameters of a session's start, or ignores them silently."""
    assert settings.database_url is not None
    connection = await connect(settings.database_url, settings.database_timeout)
    limits = [await connection.fetchval(f"SHOW {name}") for name in LIMITS]
    await connection.close()
    assert limits == ["2s", "1s", "2s", "read committed"]


async def test_a_locked_table_is_a_503_behind_a_pooler(settings: Settings) -> None:
    assert settings.database_url is not None
    await asyncio.to_thread(migrate, settings.database_url)
    async with application(settings) as client:
        await eventually(lambda: is_ready(client))
        created = await client.post("/users", json={"name": "Ada", "email": "ada@example.com"})
        sql = await asyncpg.connect(settings.database_url)
        async with sql.transaction():
            await sql.execute("LOCK TABLE users")
            refused = await client.patch(f"/users/{created.json()['id']}", json={"name": "Grace"})
        await sql.close()
    assert (refused.status_code, refused.json()["type"]) == (503, "database-unavailable")
