"""An empty database on the tests' Postgres."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg


@asynccontextmanager
async def fresh_database(database_url: str, options: str = "") -> AsyncIterator[str]:
    """Yields the address of a new database on the server of `database_url`, made with these options of CREATE DATABASE.
    It is dropped at the end."""
    name = f"fresh_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(database_url)
    await connection.execute(f"CREATE DATABASE {name} {options}")
    try:
        yield urlunsplit(urlsplit(database_url)._replace(path=f"/{name}"))
    finally:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await connection.close()
