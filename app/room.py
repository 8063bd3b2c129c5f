"""Whether the stores have room for one more instance, each of whose processes opens all the connections that it may.

What can go wrong: others take the room later. A pooler in between has limits of its own, of which Postgres knows
nothing. A store does not answer: DatabaseUnavailable, and what redis-py raises.
"""

from dataclasses import dataclass

from redis.asyncio import Redis
from sqlalchemy import text

from app.database import Database
from app.settings import Settings

BACKGROUND_IN_POSTGRES, BACKGROUND_IN_REDIS = 5, 2
"""The connections that a process opens besides those for requests (`stores.py`)."""

# The limits that hold for the role that logs in, with the sessions that each one counts. Superusers are bound by the
# first one alone. `reserved_connections` came with Postgres 16, with a role that may use them.
LIMITS = text("""
WITH me AS (SELECT * FROM pg_roles WHERE rolname = session_user),
others AS (
  SELECT usename, datname FROM pg_stat_activity
  WHERE datname IS NOT NULL AND pid <> pg_backend_pid() AND coalesce(backend_type, 'client backend') = 'client backend'
)
SELECT 'max_connections', current_setting('max_connections')::int
    - current_setting('superuser_reserved_connections')::int
    - CASE WHEN (SELECT pg_has_role(oid, 'USAGE') FROM pg_roles WHERE rolname = 'pg_use_reserved_connections') THEN 0
           ELSE coalesce(current_setting('reserved_connections', true)::int, 0) END,
  (SELECT count(*) FROM others)
UNION ALL SELECT 'the CONNECTION LIMIT of the role', rolconnlimit,
  (SELECT count(*) FROM others WHERE usename = session_user) FROM me WHERE rolconnlimit >= 0 AND NOT rolsuper
UNION ALL SELECT 'the CONNECTION LIMIT of the database', datconnlimit,
  (SELECT count(*) FROM others WHERE datname = current_database())
  FROM pg_database, me WHERE datname = current_database() AND datconnlimit >= 0 AND NOT rolsuper
""")


@dataclass(frozen=True, slots=True)
class Limit:
    """How many connections are allowed, how many there are, and what to raise if that is too few."""

    allowed: int
    used: int
    raised_by: str

    def lack(self, store: str, each: int, workers: int, setting: str) -> str | None:
        """Returns what is wrong if there is no room for `workers` processes with `each` so many connections."""
        if self.used + workers * each <= self.allowed:
            return None
        opens = "a process opens" if workers == 1 else f"{workers} processes open"
        fewer = "" if workers == 1 else "run fewer workers, "
        return (
            f"{opens} up to {workers * each} connections to {store}, which allows {self.allowed}, and {self.used} are "
            f"in use: {fewer}lower {setting}, or raise {self.raised_by}"
        )


async def lack_in_postgres(database: Database, settings: Settings, workers: int) -> str | None:
    """Returns why the connections of one more instance do not fit, None if they do. Raises DatabaseUnavailable."""
    async with database.reading("health") as connection:
        limits = [Limit(allowed, used, name) for name, allowed, used in (await connection.execute(LIMITS)).all()]
    tightest = min(limits, key=lambda limit: limit.allowed - limit.used)
    each = settings.database_connections + BACKGROUND_IN_POSTGRES
    return tightest.lack("Postgres", each, workers, "FOURWAYS_DATABASE_CONNECTIONS")


async def lack_in_redis(redis: Redis, settings: Settings, workers: int) -> str | None:
    """Does the same for Redis. Nothing lacks if it does not report its limit. Raises what redis-py raises."""
    clients = await redis.info("clients")
    if "maxclients" not in clients:
        return None
    limit = Limit(int(clients["maxclients"]), int(clients["connected_clients"]) - 1, "its maxclients")
    each = settings.redis_connections + BACKGROUND_IN_REDIS
    return limit.lack("Redis", each, workers, "FOURWAYS_REDIS_CONNECTIONS")
