"""A database with nothing in it, on the Postgres that the tests have."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg


@asynccontextmanager
async def fresh_database(database_url: str) -> AsyncIterator[str]:
    """The address of a new database beside the one at `database_url`; dropped at the end."""
    name = f"fresh_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(database_url)
    await connection.execute(f"CREATE DATABASE {name}")
    try:
        yield urlunsplit(urlsplit(database_url)._replace(path=f"/{name}"))
    finally:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await connection.close()
