"""What Postgres says of its state, as the application says it."""

from datetime import timedelta

import asyncpg
import pytest
from sqlalchemy import text

from app.database import open_database
from app.embedded import Endpoints
from app.errors import DatabaseUnavailable
from tests.fresh_database import fresh_database


async def test_a_statement_of_before_an_alter_table_is_told_as_that_and_prepared_anew(servers: Endpoints) -> None:
    async with (
        fresh_database(servers.database_url) as url,
        open_database(url, connections=1, timeout=timedelta(seconds=5), counted=lambda resource: None) as database,
    ):
        sql = await asyncpg.connect(url)
        await sql.execute("CREATE TABLE things (name text)")
        await sql.execute("INSERT INTO things VALUES ('one')")

        async def name() -> str:
            async with database.reading("things") as connection:
                return str(await connection.scalar(text("SELECT name FROM things")))

        assert await name() == "one"
        await sql.execute("ALTER TABLE things ALTER COLUMN name TYPE varchar(9)")
        await sql.close()
        with pytest.raises(DatabaseUnavailable, match="The table was altered a moment ago"):
            await name()
        assert await name() == "one"
