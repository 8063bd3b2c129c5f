"""The proxy itself: what it counts, and what it holds."""

import asyncio
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest

from app.embedded import Endpoints
from tests.eventually import PATIENCE, eventually
from tests.faults.postgres_wire import PostgresWire

GONE = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, ConnectionError)
"""How asyncpg reports that a connection was lost."""


@pytest.fixture
async def wire(endpoints: Endpoints) -> AsyncIterator[PostgresWire]:
    async with PostgresWire(endpoints.database_url) as wire:
        yield wire


async def test_each_execution_counts_whether_prepared_or_not(wire: PostgresWire) -> None:
    connection = await asyncpg.connect(wire.url)
    prepared = await connection.prepare("SELECT $1::int AS one")
    assert [await prepared.fetchval(number) for number in (1, 2, 3)] == [1, 2, 3]
    await connection.execute("SELECT 4 AS four")
    await connection.close()
    assert wire.count("AS one$") == 3
    assert wire.count("AS four") == 1
    assert wire.count("never sent") == 0


async def test_each_round_trip_counts_whatever_is_in_it(wire: PostgresWire) -> None:
    connection = await asyncpg.connect(wire.url)
    counts = [wire.round_trips]
    prepared = await connection.prepare("SELECT $1::int AS one")
    counts.append(wire.round_trips)
    await prepared.fetchval(1)
    counts.append(wire.round_trips)
    await connection.execute("BEGIN; SELECT 1; COMMIT")
    counts.append(wire.round_trips)
    await connection.close()
    assert counts == [0, 1, 2, 3]


async def test_errors_and_large_rows_pass_through(wire: PostgresWire) -> None:
    connection = await asyncpg.connect(wire.url)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await connection.fetchval("SELECT 1 / 0")
    assert await connection.fetchval("SELECT repeat($1, 1000000)", "ab") == "ab" * 1_000_000
    rows = await connection.fetch("SELECT generate_series(1, 20000)")
    assert [row[0] for row in rows] == list(range(1, 20_001))
    await connection.close()


async def test_a_copy_passes_while_other_answers_are_held(wire: PostgresWire) -> None:
    connection = await asyncpg.connect(wire.url)
    await connection.execute("CREATE TEMPORARY TABLE copied (number int)")
    async with wire.holding_replies("^COMMIT"):
        records = [(number,) for number in range(10_000)]
        await connection.copy_records_to_table("copied", records=records)
        assert await connection.fetchval("SELECT count(*) FROM copied") == 10_000
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


async def test_other_statements_overtake_a_held_one(wire: PostgresWire) -> None:
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
    with pytest.raises(GONE):
        await connection.fetchval("SELECT 1")


async def test_a_held_statement_arrives_after_its_client_has_disconnected(
    wire: PostgresWire, sql: asyncpg.Connection
) -> None:
    connection = await asyncpg.connect(wire.url)
    async with wire.holding("^INSERT") as held:
        inserting = asyncio.create_task(connection.execute("INSERT INTO stock (sku, quantity) VALUES ('LATE', 1)"))
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        connection.terminate()
        with pytest.raises(GONE):
            await inserting
        await stands(wire, 0)
        assert not await is_stored(sql, "LATE")
    await eventually(lambda: is_stored(sql, "LATE"))


@pytest.mark.parametrize("prepared", [False, True])
async def test_a_commit_whose_answer_is_held_has_been_executed(
    wire: PostgresWire, sql: asyncpg.Connection, prepared: bool
) -> None:
    connection = await asyncpg.connect(wire.url)
    await connection.execute("BEGIN; INSERT INTO stock (sku, quantity) VALUES ('A', 1)")
    async with wire.holding_replies("^COMMIT") as held:
        committing = asyncio.create_task(connection.fetch("COMMIT") if prepared else connection.execute("COMMIT"))
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        assert await is_stored(sql, "A")
        assert not committing.done()
        held.release()
        await asyncio.wait_for(committing, PATIENCE)
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()


async def test_a_connection_is_cut_after_exactly_one_commit(wire: PostgresWire, sql: asyncpg.Connection) -> None:
    lost = wire.cut_after("^COMMIT")
    for sku in ("CUT", "NOT-CUT"):
        connection = await asyncpg.connect(wire.url)
        await connection.execute(f"BEGIN; INSERT INTO stock (sku, quantity) VALUES ('{sku}', 1)")
        if sku == "CUT":
            with pytest.raises(GONE):
                await connection.execute("COMMIT")
            assert lost.dropped.is_set()
        else:
            await connection.execute("COMMIT")
            await connection.close()
        assert await is_stored(sql, sku)
    assert wire.count("^COMMIT") == 2


async def test_an_answer_is_dropped_together_with_all_after_it(wire: PostgresWire, sql: asyncpg.Connection) -> None:
    connection = await asyncpg.connect(wire.url)
    lost = wire.drop_reply("^INSERT")
    asking = asyncio.create_task(connection.execute("INSERT INTO stock (sku, quantity) VALUES ('A', 1)"))
    await asyncio.wait_for(lost.dropped.wait(), PATIENCE)
    assert await is_stored(sql, "A")
    assert not asking.done()
    connection.terminate()
    with pytest.raises(asyncpg.PostgresConnectionError):
        await asking
    await stands(wire, 0)


async def test_silence_delays_all_messages_until_healed(wire: PostgresWire) -> None:
    connection = await asyncpg.connect(wire.url)
    wire.silence()
    asking = asyncio.create_task(connection.fetchval("SELECT 1"))
    knocking = asyncio.create_task(asyncpg.connect(wire.url))
    await stands(wire, 2)
    with pytest.raises(TimeoutError):
        await asyncpg.connect(wire.url, timeout=0.1)
    await stands(wire, 2)
    assert not asking.done()
    assert not knocking.done()
    wire.heal()
    assert await asyncio.wait_for(asking, PATIENCE) == 1
    late = await asyncio.wait_for(knocking, PATIENCE)
    assert await late.fetchval("SELECT 2") == 2
    await late.close()
    await connection.close()


async def test_a_refused_client_can_connect_to_the_same_address_after_the_heal(wire: PostgresWire) -> None:
    connection = await asyncpg.connect(wire.url)
    wire.refuse()
    with pytest.raises(GONE):
        await connection.fetchval("SELECT 1")
    with pytest.raises(ConnectionRefusedError):
        await asyncpg.connect(wire.url)
    assert wire.connections == 0
    wire.heal()
    connection = await asyncpg.connect(wire.url)
    assert await connection.fetchval("SELECT 1") == 1
    wire.cut()
    with pytest.raises(GONE):
        await connection.fetchval("SELECT 1")
    await stands(wire, 0)


async def test_a_delay_applies_in_both_directions(wire: PostgresWire) -> None:
    connection = await asyncpg.connect(wire.url)
    wire.delay(0.05)
    began = time.monotonic()
    assert await connection.execute("SELECT 1") == "SELECT 1"
    assert time.monotonic() - began >= 0.1
    wire.heal()
    await connection.close()


async def stands(wire: PostgresWire, connections: int) -> None:
    """Returns when `connections` connections are open."""

    async def it_stands() -> bool:
        return wire.connections == connections

    await eventually(it_stands)


async def is_stored(sql: asyncpg.Connection, sku: str) -> bool:
    return bool(await sql.fetchval("SELECT EXISTS (SELECT FROM stock WHERE sku = $1)", sku))
