"""A migrated database on the tests' Postgres: a copy of one that was migrated once, in a third of the time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from app.schema import migrate
from tests.fresh_database import fresh_database

TEMPLATE = "migrated"


@asynccontextmanager
async def migrated_database(database_url: str) -> AsyncIterator[str]:
    """Yields the address of a new, migrated database on the server of `database_url`. It is dropped at the end."""
    await _make_template(database_url)
    async with fresh_database(database_url, f"TEMPLATE {TEMPLATE}") as url:
        connection = await asyncpg.connect(url)
        # No two deployments have the same name, but those whose database was copied.
        await connection.execute("UPDATE deployment SET id = gen_random_uuid()")
        await connection.close()
        yield url


async def _make_template(database_url: str) -> None:
    """Makes the template, unless this server has one."""
    connection = await asyncpg.connect(database_url)
    # Who comes meanwhile waits: the lock ends with the connection.
    await connection.execute("SELECT pg_advisory_lock(hashtext($1))", TEMPLATE)
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", TEMPLATE):
        await connection.execute(f"CREATE DATABASE {TEMPLATE}_soon")
        await asyncio.to_thread(migrate, urlunsplit(urlsplit(database_url)._replace(path=f"/{TEMPLATE}_soon")))
        await connection.execute(f"ALTER DATABASE {TEMPLATE}_soon RENAME TO {TEMPLATE}")
    await connection.close()
