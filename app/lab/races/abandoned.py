"""The leftovers of killed explorations: a schema, and some keys. The next exploration removes them.

A running exploration holds the lock of its schema, and its keys contain the name of an existing schema.
"""

from redis.asyncio import Redis

from app.lab.own_session import own_session
from app.lab.races import schema, stepped_redis


async def remove_abandoned(redis: Redis, database_url: str) -> None:
    """Removes them, except those in use now. Raises OSError, RedisError, asyncpg's errors, and LabError where a pooler
    is in between."""
    # Lists the keys before the schemas, so that keys of an exploration that begins now are not among them.
    keys = [key async for key in redis.scan_iter(f"{stepped_redis.PREFIX}{schema.PREFIX}*", count=1000)]
    connection = await own_session(database_url, schema.PATIENCE)
    try:
        used = set()
        for (name,) in await connection.fetch(
            "SELECT nspname FROM pg_namespace WHERE nspname ~ $1", f"^{schema.PREFIX}[0-9a-f]{{8}}$"
        ):
            if await connection.fetchval("SELECT pg_try_advisory_lock($1, hashtext($2))", schema.LOCK, name):
                await connection.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")
            else:
                used.add(name.encode())
    finally:
        await connection.close()
    if dead := [key for key in keys if key.split(b":")[1] not in used]:
        await redis.delete(*dead)
