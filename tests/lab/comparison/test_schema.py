"""The lab's schema: everything is created in it, and nothing is left of it."""

import asyncio
import re

import asyncpg
import pytest

from app.embedded import Endpoints
from app.lab.comparison.lab_error import LabError
from app.lab.comparison.schema import SCHEMA, lab_schema
from app.lab.races.schema import schema
from tests.faults.pgbouncer import MODES, pgbouncer

SCHEMAS = "SELECT count(*) FROM pg_namespace WHERE nspname = $1"


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


async def test_a_schema_left_by_a_killed_process_is_replaced(endpoints: Endpoints, sql: asyncpg.Connection) -> None:
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


@pytest.mark.parametrize("mode", MODES)
async def test_no_lock_or_search_path_of_the_lab_stays_in_a_session_of_a_pooler(
    endpoints: Endpoints, mode: str
) -> None:
    async with pgbouncer(endpoints.database_url, mode, sessions=1) as pooler:
        for lab in (lab_schema, schema):
            with pytest.raises(LabError, match="not a pooler"):
                async with lab(pooler.url):
                    pass
        other = await asyncpg.connect(pooler.url, statement_cache_size=0)
        assert await other.fetchval("SHOW search_path") == '"$user", public'
        assert (
            await other.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
            == 0
        )
        await other.close()


async def test_a_database_that_does_not_permit_it_is_reported(endpoints: Endpoints, sql: asyncpg.Connection) -> None:
    await sql.execute("CREATE ROLE lab_guest LOGIN")
    try:
        url = re.sub(r"://[^@/]*@", "://lab_guest@", endpoints.database_url)
        with pytest.raises(LabError, match="may not make its schema fourways_lab"):
            async with lab_schema(url):
                pass
    finally:
        await sql.execute("DROP ROLE lab_guest")
