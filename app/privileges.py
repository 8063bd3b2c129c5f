"""Whether the service may do in its stores what it has to do there (`grants.py`).

A missing privilege would show late: views are accepted, and wait in Redis for a flush that is refused each time. So
readiness asks beforehand.

What can go wrong: the store does not answer (DatabaseUnavailable, CacheUnavailable). A rule in the database, such as
row-level security, refuses what the privileges permit.
"""

from collections.abc import Sequence

from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.caching import denied
from app.database import Database
from app.grants import FUNCTIONS, KEYS, SEQUENCES, TABLES

# What does not exist is no missing privilege, but a missing migration, or is where the role does not look for it: in a
# schema that it may not use, or that search_path does not name.
NOWHERE = "its tables"
KNOWN_BY = "stock_adjustments"
"""A table whose name tells our schema from those of other applications."""
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
            f"('{NOWHERE}', to_regclass('{KNOWN_BY}') IS NOT NULL)",
        ]
    )
    + ") AS each (what, is_held) WHERE NOT is_held"
)
PLACES = text(
    "SELECT nspname::text, has_schema_privilege(n.oid, 'USAGE') FROM pg_class "
    f"JOIN pg_namespace AS n ON n.oid = relnamespace WHERE relname = '{KNOWN_BY}' AND relkind = 'r' ORDER BY nspname"
)
PATH = text("SELECT current_setting('search_path'), current_schema() IS NOT NULL")
SHOWN = 5

GRANT_IN_REDIS = "pipe `fourways grants redis --user …` to redis-cli"
GRANT_IN_POSTGRES = "pipe `fourways grants postgres --role …` to psql, as the owner"


class Privileges:
    """The privileges of this process in both stores. They were `complete_…` if nothing was ever missing."""

    def __init__(self, database: Database, prefix: str) -> None:
        self._database, self._prefix = database, prefix
        self.complete_in_postgres = self.complete_in_redis = False

    async def missing_in_postgres(self) -> str | None:
        """Returns what the role of DATABASE_URL lacks, and what to do; None if nothing. Raises DatabaseUnavailable."""
        missing, complete = await _missing(self._database)
        self.complete_in_postgres |= complete
        return missing

    async def missing_in_redis(self, redis: Redis, trial: str = "views:trial") -> str | None:
        """Returns what the user of REDIS_URL may not do, and what to do; None if nothing. `trial` is a name that is not
        in use. Raises CacheUnavailable."""
        keys = {f"{self._prefix}{key.replace('*', '0}')}": f"~{self._prefix}{key}" for key in KEYS}
        if self._prefix + trial not in keys:  # In a cluster, the node that is asked must own its slot.
            keys[self._prefix + trial] = keys.pop(f"{self._prefix}views:trial")
        missing = await denied(redis, self._prefix + trial, list(keys))
        self.complete_in_redis |= not missing
        missing = [keys.get(one, one) for one in missing]
        return f"its user lacks {_some(missing)}: {GRANT_IN_REDIS}" if missing else None


async def missing_in_postgres(database: Database) -> str | None:
    """Returns what the role lacks, and what to do; None if nothing. Raises DatabaseUnavailable."""
    return (await _missing(database))[0]


async def _missing(database: Database) -> tuple[str | None, bool]:
    """Returns the same, and whether the role is known to lack nothing."""
    async with database.reading("health") as connection:
        missing, lost = list(await connection.scalars(MISSING)), None
        if is_lost := NOWHERE in missing:
            missing.remove(NOWHERE)
            closed, lost = await _whereabouts(connection)
            missing += closed
    said = f"its role lacks {_some(missing)}: {GRANT_IN_POSTGRES}" if missing else lost
    return said, not missing and not is_lost


async def _whereabouts(connection: AsyncConnection) -> tuple[list[str], str | None]:
    """Returns why the tables are not found: missing privileges on their schemas, and what is wrong with search_path."""
    path, has_schema = (await connection.execute(PATH)).one()
    places = {str(place): bool(is_open) for place, is_open in (await connection.execute(PLACES)).all()}
    if not places and has_schema:
        return [], None  # A migration is missing.
    closed = [f"USAGE ON SCHEMA {place}" for place, is_open in places.items() if not is_open]
    where = f"the tables are in {' or '.join(places)}" if places else "there is no schema that its role may use"
    return closed, (
        f"its search_path is {path or 'empty'}, and {where}: put it right in DATABASE_URL, as in "
        f"options=-c%20search_path%3D{next(iter(places), '…')}, or with ALTER ROLE … SET search_path"
    )


def _some(missing: Sequence[str]) -> str:
    more = len(missing) - SHOWN
    return ", ".join(missing[:SHOWN]) + (f" and {more} more" if more > 0 else "")
