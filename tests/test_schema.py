"""How the application detects the schema of the database, and migrates it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import timedelta

import asyncpg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from app.database import Database, open_database
from app.embedded import Endpoints
from app.errors import DatabaseUnavailable
from app.schema import ALEMBIC, Schema, _revisions, migrate, schema
from tests.fresh_database import fresh_database


@pytest.fixture
async def empty(endpoints: Endpoints) -> AsyncIterator[str]:
    """The address of an empty database."""
    async with fresh_database(endpoints.database_url) as url:
        yield url


async def test_an_empty_database_lacks_a_migration_until_it_is_migrated(empty: str) -> None:
    assert await _schema(empty) is Schema.OLDER
    await asyncio.to_thread(migrate, empty)
    assert await _schema(empty) is Schema.CURRENT
    await asyncio.to_thread(migrate, empty)
    assert await _schema(empty) is Schema.CURRENT


def test_the_revisions_known_to_the_code_match_those_that_alembic_finds() -> None:
    scripts = ScriptDirectory.from_config(Config(str(ALEMBIC)))
    known, heads = _revisions()
    assert known == {script.revision for script in scripts.walk_revisions()}
    assert heads == set(scripts.get_heads())


async def test_a_database_of_a_later_version_is_not_changed(empty: str) -> None:
    await asyncio.to_thread(migrate, empty)
    connection = await asyncpg.connect(empty)
    await connection.execute("UPDATE alembic_version SET version_num = '9999'")
    await asyncio.to_thread(migrate, empty)
    assert await _schema(empty) is Schema.NEWER
    assert await connection.fetchval("SELECT version_num FROM alembic_version") == "9999"
    await connection.close()


async def test_a_missing_table_is_reported_as_a_missing_migration(empty: str) -> None:
    async with _database(empty) as database:
        with pytest.raises(DatabaseUnavailable, match="lacks a migration: run `alembic upgrade head`"):
            async with database.reading("users") as connection:
                await connection.exec_driver_sql("SELECT * FROM users")


async def _schema(url: str) -> Schema:
    async with _database(url) as database:
        return await schema(database)


def _database(url: str) -> AbstractAsyncContextManager[Database]:
    return open_database(url, connections=1, timeout=timedelta(seconds=60), counted=lambda resource: None)
