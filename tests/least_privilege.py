"""Stores in which the service may do what `fourways grants` lists, and nothing else."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
from redis.asyncio import Redis

from app.grants import postgres_grants, redis_grants
from app.grants import quoted as quoted
from tests.migrated_database import migrated_database


@dataclass(frozen=True, slots=True)
class Role:
    """A role that owns nothing, in a database of its own. `url` connects as the role, `owner_url` as the owner."""

    name: str
    url: str
    owner_url: str


@asynccontextmanager
async def a_role(url: str, name: str = 'Fourways\'s "app"') -> AsyncIterator[str]:
    """Yields the name of a new role on the server of `url`, which begins with `name`."""
    name = f"{name} {secrets.token_hex(4)}"
    sql = await asyncpg.connect(url)
    await sql.execute(f"CREATE ROLE {quoted(name)} LOGIN")
    try:
        yield name
    finally:
        await sql.execute(f"DROP ROLE {quoted(name)}")
        await sql.close()


@asynccontextmanager
async def granted_role(url: str) -> AsyncIterator[Role]:
    """Yields a role that may do what the service needs, in a new and migrated database on the server of `url`."""
    async with a_role(url) as name, migrated_database(url) as owner_url:
        sql = await asyncpg.connect(owner_url)
        await sql.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        await sql.execute("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC")
        await sql.execute(postgres_grants(name))
        await sql.close()
        yield Role(name, as_role(owner_url, name), owner_url)


@asynccontextmanager
async def granted_user(url: str, prefix: str) -> AsyncIterator[str]:
    """Yields the address for a connection as a user that may do what the service needs, on the Redis of `url`."""
    name, password = f"fourways-{secrets.token_hex(4)}", secrets.token_hex(8)
    async with Redis.from_url(url) as redis:
        await redis.execute_command(*redis_grants(name, prefix).split())  # type: ignore[no-untyped-call]
        await redis.execute_command("ACL", "SETUSER", name, f">{password}")  # type: ignore[no-untyped-call]
        yield url.replace("unix://", f"unix://{name}:{password}@")
        await redis.acl_deluser(name)


def as_role(url: str, name: str) -> str:
    """Returns the address for a connection as this role."""
    parts = urlsplit(url)
    _, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{quote(name, safe='')}@{host}"))
