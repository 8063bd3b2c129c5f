"""The proxy itself: what it counts, and what it holds."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from app.embedded import Endpoints
from tests.eventually import PATIENCE
from tests.faults.postgres_wire import PostgresWire


@pytest.fixture
async def wire(endpoints: Endpoints) -> AsyncIterator[PostgresWire]:
    async with PostgresWire(endpoints.database_url) as wire:
        yield wire


async def test_each_execution_counts_whether_it_was_prepared_or_not(wire: PostgresWire) -> None:
    connection = await asyncpg.connect(wire.url)
    prepared = await connection.prepare("SELECT $1::int AS one")
    assert [await prepared.fetchval(number) for number in (1, 2, 3)] == [1, 2, 3]
    await connection.execute("SELECT 4 AS four")
    await connection.close()
    assert wire.count("AS one$") == 3
    assert wire.count("AS four") == 1
    assert wire.count("never sent") == 0


async def test_errors_and_large_rows_pass_through(wire: PostgresWire) -> None:
    connection = await asyncpg.connect(wire.url)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await connection.fetchval("SELECT 1 / 0")
    assert await connection.fetchval("SELECT repeat($1, 1000000)", "ab") == "ab" * 1_000_000
    await connection.close()


@pytest.mark.parametrize("simple", [False, True])
async def test_a_held_statement_sees_what_was_committed_before_its_release(
    wire: PostgresWire, sql: asyncpg.Connection, simple: bool
) -> None:
    connection = await asyncpg.connect(wire.url)
    insert = "INSERT INTO stock (sku, quantity) SELECT 'COPY', quantity FROM stock WHERE sku = 'A'"
    async with wire.holding("^INSERT INTO stock") as held:
        run = connection.execute(insert) if simple else connection.fetch(insert)
        copying = asyncio.create_task(run)
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        assert wire.count("^INSERT INTO stock") == 0
        await sql.execute("INSERT INTO stock (sku, quantity) VALUES ('A', 7)")
        held.release()
        await asyncio.wait_for(copying, PATIENCE)
    await connection.close()
    assert wire.count("^INSERT INTO stock") == 1
    assert await sql.fetchval("SELECT quantity FROM stock WHERE sku = 'COPY'") == 7


async def test_what_does_not_match_overtakes_what_is_held(wire: PostgresWire) -> None:
    slow, quick = await asyncpg.connect(wire.url), await asyncpg.connect(wire.url)
    async with wire.holding("AS slow") as held:
        waiting = asyncio.create_task(slow.fetchval("SELECT 1 AS slow"))
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        assert await quick.fetchval("SELECT 2 AS quick") == 2
        assert not waiting.done()
    assert await asyncio.wait_for(waiting, PATIENCE) == 1  # The end of the block releases it.
    await slow.close()
    await quick.close()


async def test_a_connection_left_open_does_not_keep_the_proxy_open(endpoints: Endpoints) -> None:
    async with PostgresWire(endpoints.database_url) as wire:
        connection = await asyncpg.connect(wire.url)
        assert await connection.fetchval("SELECT 1") == 1
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, ConnectionError)):
        await connection.fetchval("SELECT 1")
