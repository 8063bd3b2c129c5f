"""Without Redis, reads ask the database a few at a time. Reads beyond that are told to come back, and told quickly."""

import asyncio
import time
from collections import Counter
from datetime import timedelta

import asyncpg
import pytest

from app.caching import bulkhead
from app.embedded import Endpoints
from app.main import create_app
from app.settings import Settings
from tests.coherence.conftest import NewInstance
from tests.in_process import client_of
from tests.topologies.ways import Ways

READERS = 40
WAITING = "SELECT count(*) FROM pg_locks WHERE relation = 'users'::regclass AND NOT granted"


@pytest.fixture
async def users(sql: asyncpg.Connection) -> list[int]:
    """The ids of many users."""
    query = (
        "INSERT INTO users (name, email) SELECT 'Ada', n || '@example.com' FROM generate_series(1, $1) n RETURNING id"
    )
    return [int(record["id"]) for record in await sql.fetch(query, READERS)]


async def test_reads_without_redis_leave_connections_to_writers_and_excess_reads_get_503(
    endpoints: Endpoints, named: Endpoints, ways: Ways, users: list[int], sql: asyncpg.Connection
) -> None:
    """Redis refuses connections, and Postgres answers no query of users: somebody has locked the table."""
    async with ways.redis(endpoints.redis_url) as wire:
        wire.refuse()
        settings = Settings(
            _env_file=None,
            redis_url=wire.url,
            database_url=named.database_url,
            database_connections=8,
            database_timeout=timedelta(seconds=60),
        )
        async with client_of(create_app(settings)) as client:
            async with sql.transaction():
                await sql.execute("LOCK TABLE users")
                began = time.monotonic()
                readers = [asyncio.create_task(client.get(f"/users/{user_id}")) for user_id in users]
                told = []
                for reader in asyncio.as_completed(readers):
                    told.append(await reader)
                    if len(told) == READERS - 4:
                        break
                took = time.monotonic() - began
                assert await sql.fetchval(WAITING) == 4
                assert {answer.status_code for answer in told} == {503}
                assert {answer.json()["type"].rpartition("/")[2] for answer in told} == {"overloaded"}
                assert {answer.headers["retry-after"] for answer in told} == {"1"}
                # Writers can use the other half of the connections.
                created = await client.post("/products", json={"sku": "CUP", "name": "Cup", "price": "6.20"})
                assert created.status_code == 201
            print(f"Told after {took:.2f} s.")
            assert took < bulkhead.TURN.total_seconds() + 5
            answers = [await reader for reader in readers]
            assert Counter(answer.status_code for answer in answers) == {200: 4, 503: READERS - 4}
            assert (await client.get(f"/users/{users[-1]}")).status_code == 200


async def test_a_reader_that_waits_for_a_turn_gets_what_was_written_meanwhile(
    new_instance: NewInstance, ada: int, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis refuses connections, and readers of products take all turns:

    R1 waits for a turn                 W commits the new row, and answers
                                        R2 joins R1
    """
    monkeypatch.setattr(bulkhead, "TURN", timedelta(hours=1))
    a = await new_instance()
    await a.believes()
    a.redis.refuse()
    await a.believes_no_more()
    async with a.postgres.holding("FROM products") as held:
        others = [asyncio.create_task(a.products.get(sku)) for sku in "ABCD"]
        await held.arrived.wait()
        first = asyncio.create_task(a.name(ada))
        await asyncio.wait({first}, timeout=0)
        queries = a.postgres.count("FROM users")
        await a.rename(ada, "Ada King")
        second = asyncio.create_task(a.name(ada))
        await asyncio.wait({second}, timeout=0)
        held.release()
        assert [await first, await second] == ["Ada King", "Ada King"]
        assert a.postgres.count("FROM users") == queries + 1
        await asyncio.gather(*others)
