"""The lab's table: versions, locks and the journal, with the triggers of the service's tables."""

import asyncpg
import pytest

from app.caching import CacheUnavailable
from app.lab.comparison.journal import read_journal
from app.lab.comparison.lab_table import LabTable, add_rows
from app.lab.comparison.pool import Pool
from app.lab.strategy import Row

SERVICE = "SELECT (SELECT count(*) FROM public.outbox) + (SELECT last_value FROM public.row_version)"


async def test_each_write_gets_a_higher_version_and_a_journal_entry(pool: Pool) -> None:
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


async def test_only_cached_rows_have_an_outbox_and_it_is_the_labs_own(pool: Pool, sql: asyncpg.Connection) -> None:
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


async def test_a_read_during_a_write_learns_that_it_could_not_share_the_lock(pool: Pool) -> None:
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


async def test_a_value_that_cannot_be_revoked_is_not_saved(pool: Pool) -> None:
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


async def test_save_each_makes_one_statement_and_one_journal_entry_per_value(pool: Pool) -> None:
    await add_rows(pool, "run/one/", ["a", "b"], cached=False)
    counted: list[int | None] = []
    table = LabTable(pool, "run/one/", count=counted.append)
    await table.save_each([("a", 1), ("b", 2), ("a", 3)])
    assert counted == [None, None, None]
    noted = await read_journal(pool, "run/one/")
    assert {key: [each.value for each in values] for key, values in noted.items()} == {"a": [1, 3], "b": [2]}
