"""The lab's tables: in a schema of their own, with the triggers of the service's."""

import asyncio
import re

import asyncpg
import pytest

from app.caching import CacheUnavailable
from app.embedded import Endpoints
from app.lab.comparison.table import (
    SCHEMA,
    LabError,
    LabTable,
    Pool,
    add_rows,
    database_clock,
    lab_schema,
    read_journal,
)
from app.lab.strategy import Row

SCHEMAS = "SELECT count(*) FROM pg_namespace WHERE nspname = $1"
SERVICE = "SELECT (SELECT count(*) FROM public.outbox) + (SELECT last_value FROM public.row_version)"


async def version(pool: Pool) -> int:
    return int(await pool.fetchval("SELECT last_value FROM row_version"))


async def test_everything_is_made_in_its_schema_and_removed_at_the_end(
    endpoints: Endpoints, sql: asyncpg.Connection
) -> None:
    before = await sql.fetchval("SELECT count(*) FROM pg_class")
    async with lab_schema(endpoints.database_url):
        tables = await sql.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", SCHEMA)
        names = {row["tablename"] for row in tables}
        assert {"entries", "plain_entries", "journal", "outbox", "applied", "page_views", "alembic_version"} <= names
    assert await sql.fetchval(SCHEMAS, SCHEMA) == 0
    assert await sql.fetchval("SELECT count(*) FROM pg_class") == before


async def test_it_is_removed_when_the_block_raises(endpoints: Endpoints, sql: asyncpg.Connection) -> None:
    with pytest.raises(asyncio.CancelledError):
        async with lab_schema(endpoints.database_url):
            raise asyncio.CancelledError
    assert await sql.fetchval(SCHEMAS, SCHEMA) == 0


async def test_what_a_killed_process_left_behind_is_replaced(endpoints: Endpoints, sql: asyncpg.Connection) -> None:
    await sql.execute(f"CREATE SCHEMA {SCHEMA}")
    await sql.execute(f"CREATE TABLE {SCHEMA}.entries (old int)")
    async with lab_schema(endpoints.database_url):
        columns = "SELECT count(*) FROM information_schema.columns WHERE table_schema = $1 AND column_name = 'old'"
        assert await sql.fetchval(columns, SCHEMA) == 0


async def test_two_comparisons_do_not_share_it(endpoints: Endpoints) -> None:
    async with lab_schema(endpoints.database_url):
        with pytest.raises(LabError, match="Another comparison runs"):
            async with lab_schema(endpoints.database_url):
                pass


async def test_a_database_that_is_no_place_for_it_is_told(endpoints: Endpoints, sql: asyncpg.Connection) -> None:
    await sql.execute("CREATE ROLE lab_guest LOGIN")
    try:
        url = re.sub(r"://[^@/]*@", "://lab_guest@", endpoints.database_url)
        with pytest.raises(LabError, match="may not make its schema fourways_lab"):
            async with lab_schema(url):
                pass
    finally:
        await sql.execute("DROP ROLE lab_guest")


async def test_a_write_gets_a_higher_version_each_time_and_is_noted(pool: Pool) -> None:
    await add_rows(pool, "run/one/", ["a", "b"], cached=True)
    await add_rows(pool, "run/other/", ["a"], cached=True)
    table = LabTable(pool, "run/one/", cached=True)
    first, second = await table.save("a", 7), await table.add("a", 2)
    assert first is not None
    assert second is not None
    assert (first.value, second.value) == (7, 9)
    assert first.version < second.version
    assert await table.load("a") == second
    assert await table.load("none") is None
    assert await table.save("none", 1) is None
    await table.save_many({"b": 5, "a": 4})
    assert {key: row.value for key, row in (await table.load_many(["a", "b", "none"])).items()} == {"a": 4, "b": 5}
    noted = await read_journal(pool, "run/one/")
    assert {key: [each.value for each in values] for key, values in noted.items()} == {"a": [7, 9, 4], "b": [5]}


async def test_only_what_is_cached_has_an_outbox_and_it_is_the_labs(pool: Pool, sql: asyncpg.Connection) -> None:
    before = await sql.fetchval(SERVICE)
    await add_rows(pool, "run/ours/", ["a"], cached=True)
    await add_rows(pool, "run/theirs/", ["a"], cached=False)
    ours, theirs = LabTable(pool, "run/ours/", cached=True), LabTable(pool, "run/theirs/")
    row = await ours.save("a", 1)
    await theirs.save("a", 1)
    assert row is not None
    outbox = await pool.fetch("SELECT resource, key, version FROM outbox")
    assert [tuple(each) for each in outbox] == [("entries", "run/ours/a", row.version)]
    assert await sql.fetchval(SERVICE) == before


async def test_who_reads_under_a_writer_learns_that_it_could_not_share_the_lock(pool: Pool) -> None:
    await add_rows(pool, "run/one/", ["a"], cached=True)
    table = LabTable(pool, "run/one/", cached=True)
    seen: list[tuple[bool, Row | None]] = []

    async def revoke() -> None:
        seen.append(await table.load_shared("a"))

    saved = await table.save_locked("a", 3, revoke)
    assert saved is not None
    (unlocked, row), after = seen[0], await table.load_shared("a")
    assert not unlocked
    assert row is not None
    assert row.value == 0
    assert after == (True, saved)


async def test_what_cannot_be_revoked_is_not_saved(pool: Pool) -> None:
    await add_rows(pool, "run/one/", ["a"], cached=True)
    table = LabTable(pool, "run/one/", cached=True)

    async def revoke() -> None:
        raise CacheUnavailable("Redis is away")

    with pytest.raises(CacheUnavailable):
        await table.save_locked("a", 3, revoke)
    found = await table.load("a")
    assert found is not None
    assert found.value == 0
    assert await read_journal(pool, "run/one/") == {}


async def test_statements_are_counted_with_the_keys_that_reads_ask_for(pool: Pool) -> None:
    counted: list[int | None] = []
    table = LabTable(pool, "run/one/", count=counted.append)
    await table.load("a")
    await table.load_many(["a", "b", "c"])
    await table.save("a", 1)
    await table.save_many({"a": 1, "b": 2})
    assert counted == [1, 3, None, None]


async def test_the_databases_clock_is_known_to_within_half_a_round_trip(pool: Pool) -> None:
    first, second = await database_clock(pool), await database_clock(pool)
    assert abs(first[0] - second[0]) <= first[1] + second[1] + 0.001
    assert 0 < first[1] < 1


async def test_what_is_saved_one_by_one_is_a_statement_and_a_row_each(pool: Pool) -> None:
    await add_rows(pool, "run/one/", ["a", "b"], cached=False)
    counted: list[int | None] = []
    table = LabTable(pool, "run/one/", count=counted.append)
    await table.save_each([("a", 1), ("b", 2), ("a", 3)])
    assert counted == [None, None, None]
    noted = await read_journal(pool, "run/one/")
    assert {key: [each.value for each in values] for key, values in noted.items()} == {"a": [1, 3], "b": [2]}
