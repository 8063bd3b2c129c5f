"""Whether the service may do in its stores what it has to do there (`grants.py`).

A missing privilege would show late: views are accepted, and wait in Redis for a flush that is refused each time. So
readiness asks beforehand.

What can go wrong: the store does not answer (DatabaseUnavailable, CacheUnavailable). A rule in the database, such as
row-level security, refuses what the privileges permit.
"""

from collections.abc import Sequence

from redis.asyncio import Redis
from sqlalchemy import text

from app.caching import denied
from app.database import Database
from app.grants import FUNCTIONS, KEYS, SEQUENCES, TABLES

# What does not exist is no missing privilege, but a missing migration. In a schema that the role may not use, nothing
# exists for it.
MISSING = text(
    "SELECT what FROM (VALUES "
    + ", ".join(
        [
            *(
                f"('{some} ON {table}', has_table_privilege(to_regclass('{table}')::oid, '{some}'))"
                for table, each in TABLES.items()
                for some in each.split(", ")
            ),
            *(
                f"('{some} ON {sequence}', has_sequence_privilege(to_regclass('{sequence}')::oid, '{some}'))"
                for sequence, some in SEQUENCES.items()
            ),
            *(
                f"('EXECUTE ON {function}', has_function_privilege(to_regprocedure('{function}')::oid, 'EXECUTE'))"
                for function in FUNCTIONS
            ),
            "('USAGE ON its schema', current_schema() IS NOT NULL)",
        ]
    )
    + ") AS each (what, is_held) WHERE NOT is_held"
)
SHOWN = 5


class Privileges:
    """The privileges of this process in both stores. They were `complete_…` if nothing was ever missing."""

    def __init__(self, database: Database, redis: Redis, prefix: str) -> None:
        self._database, self._redis, self._prefix = database, redis, prefix
        self.complete_in_postgres = self.complete_in_redis = False

    async def missing_in_postgres(self) -> str | None:
        """Returns what the role of DATABASE_URL lacks, and what to do; None if nothing. Raises DatabaseUnavailable."""
        missing = await missing_in_postgres(self._database)
        self.complete_in_postgres |= missing is None
        return missing

    async def missing_in_redis(self) -> str | None:
        """Returns what the user of REDIS_URL may not do, and what to do; None if nothing. Raises CacheUnavailable."""
        keys = {f"{self._prefix}{key.replace('*', '0}')}": f"~{self._prefix}{key}" for key in KEYS}
        missing = await denied(self._redis, f"{self._prefix}views:trial", list(keys))
        self.complete_in_redis |= not missing
        missing = [keys.get(one, one) for one in missing]
        return f"its user lacks {_some(missing)}: run `fourways grants redis`" if missing else None


async def missing_in_postgres(database: Database) -> str | None:
    """Returns what the role lacks, and what to do; None if nothing. Raises DatabaseUnavailable."""
    async with database.reading("health") as connection:
        missing = list(await connection.scalars(MISSING))
    return f"its role lacks {_some(missing)}: run `fourways grants postgres`" if missing else None


def _some(missing: Sequence[str]) -> str:
    more = len(missing) - SHOWN
    return ", ".join(missing[:SHOWN]) + (f" and {more} more" if more > 0 else "")
