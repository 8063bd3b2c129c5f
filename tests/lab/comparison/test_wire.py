"""The wire in front of Postgres: it delays, keeps the order, and is gone at the end."""

import itertools
from pathlib import Path

import asyncpg
import pytest

from app.embedded import Endpoints
from app.lab.comparison.wire import wire


async def test_data_arrives_as_it_was_sent(endpoints: Endpoints) -> None:
    # Each arrival has a different delay: without an order, the parts of an answer would overtake each other.
    lateness = itertools.cycle([0.004, 0.0, 0.002])
    async with wire(endpoints.database_url, lambda: next(lateness)) as url:
        connection = await asyncpg.connect(url)
        rows = await connection.fetch("SELECT n, repeat('x', 200) AS text FROM generate_series(1, 20000) n")
        await connection.close()
    assert [row["n"] for row in rows] == list(range(1, 20_001))


async def test_each_round_trip_is_delayed_in_both_directions(endpoints: Endpoints) -> None:
    paid = 0

    def latency() -> float:
        nonlocal paid
        paid += 1
        return 0.001

    async with wire(endpoints.database_url, latency) as url:
        connection = await asyncpg.connect(url)
        await connection.fetchval("SELECT 1")
        before = paid
        await connection.execute("SELECT 1")
        assert paid == before + 2
        await connection.close()


async def test_a_postgres_that_is_away_is_away_through_the_wire(tmp_path: Path) -> None:
    async with wire(f"postgresql://postgres@/postgres?host={tmp_path}", lambda: 0.0) as url:
        with pytest.raises((asyncpg.PostgresConnectionError, ConnectionError)):
            await asyncpg.connect(url, timeout=20)


async def test_at_the_end_connections_are_cut_and_the_socket_is_gone(endpoints: Endpoints) -> None:
    async with wire(endpoints.database_url, lambda: 0.0) as url:
        connection = await asyncpg.connect(url)
    with pytest.raises(OSError):
        await asyncpg.connect(url)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await connection.fetchval("SELECT 1")


async def test_several_hosts_are_refused() -> None:
    with pytest.raises(ValueError, match="several hosts"):
        async with wire("postgresql://one:5432,two:5432/postgres", lambda: 0.0):
            pass


async def test_each_direction_may_have_its_own_delay_and_what_a_client_sends_is_reported(endpoints: Endpoints) -> None:
    there: list[bytes] = []
    back = 0

    def answered() -> float:
        nonlocal back
        back += 1
        return 0.0

    async with wire(endpoints.database_url, lambda: 0.0, back=answered, hear=there.append) as url:
        connection = await asyncpg.connect(url)
        there.clear()
        before = back
        await connection.execute("SELECT 'said'")
        await connection.close()
    assert b"SELECT 'said'" in there[0]
    assert back > before
