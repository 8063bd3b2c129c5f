"""What is wrong with a store, in its own words, and what to do about it.

What can go wrong: the store does not answer, or refuses this process. Then `Health.error` has the reason.
"""

from dataclasses import dataclass

from redis.asyncio import Redis

from app.availability import sqlstate
from app.caching import CacheUnavailable, fitness, trial
from app.caching.errors import NoPrimary
from app.caching.words import code
from app.database import Database
from app.errors import DatabaseUnavailable, OtherHistory, StandbyMet
from app.privileges import GRANT_IN_POSTGRES, GRANT_IN_REDIS, Privileges
from app.schema import Server, schema, server

OK = "ok"
UNKNOWN = "unknown"
OLDEST_POSTGRES = 15

TO_DO_WITH_REDIS = {
    "NOAUTH": "put its password into REDIS_URL",
    "WRONGPASS": "put the right user and password into REDIS_URL",
    "NOPERM": GRANT_IN_REDIS,
    "READONLY": "name the primary in REDIS_URL",
    "MASTERDOWN": "name the primary in REDIS_URL",
    "MISCONF": "see in its log why its disk takes nothing",
    "NOREPLICAS": "see whether its replicas follow it, or lower its min-replicas-to-write",
    "OOM": "raise its maxmemory, or see what else is kept in it",
    "LOADING": "wait",
    None: "see whether it runs, and is what REDIS_URL names",
}
LOOK_FOR_SENTINELS = "see whether they run, and are what REDIS_URL names"
TO_DO_WITH_SENTINELS = {
    "no Sentinel answers": LOOK_FOR_SENTINELS,
    "do not monitor": "put the name that they monitor behind the hosts in REDIS_URL",
    "NOAUTH": "put sentinel_password, and sentinel_username, into REDIS_URL",
    "WRONGPASS": "put the right sentinel_username and sentinel_password into REDIS_URL",
    "unknown command": "name Sentinels in REDIS_URL, or write redis:// for a Redis",
    "although": "wait",
}
"""By what is said where the Sentinels name no primary."""
TO_DO_WITH_POSTGRES = {
    "26": "set its pool_mode to session",
    "42P05": "set its pool_mode to session",
    "08004": "see the options in DATABASE_URL",
    "28": "put the right user and password into DATABASE_URL",
    "3D": "name the right database in DATABASE_URL",
    "53300": "see its max_connections, and the CONNECTION LIMIT of the role and of the database",
    "53": "see its log",
    "57P03": "wait",
    "42501": GRANT_IN_POSTGRES,
}


@dataclass(frozen=True, slots=True)
class Health:
    """`parts` maps each part of a store to "ok" (the schema: "current") or to its fault. `error` is set if the store
    did not answer. `lacks_privileges` says that this process may not do what it has to."""

    parts: dict[str, str]
    error: CacheUnavailable | DatabaseUnavailable | None = None
    lacks_privileges: bool = False


async def redis_health(redis: Redis, privileges: Privileges, prefix: str, trial_name: str = "views:trial") -> Health:
    """Queries one Redis. `trial_name` is a name there that is not in use."""
    parts = {"redis": OK, "eviction": UNKNOWN, "persistence": UNKNOWN}
    try:
        fit = await fitness(redis)
        parts |= {"eviction": fit["eviction"], "persistence": fit["persistence"]}
        if fit["version"] != OK:
            parts["redis"] = fit["version"]
        elif fit["role"] != OK:
            parts["redis"] = f"{fit['role']}: {TO_DO_WITH_REDIS['READONLY']}"
        elif fit["sentinels"] != OK:
            parts["redis"] = f"{fit['sentinels']}: {LOOK_FOR_SENTINELS}"
        if (missing := await privileges.missing_in_redis(redis, trial_name)) is not None:
            return Health(parts | {"redis": missing}, lacks_privileges=True)
        await trial(redis, prefix + trial_name)
    except CacheUnavailable as error:
        to_do = TO_DO_WITH_REDIS.get(code(error.__cause__), "see its log")
        if "DB index" in str(error):
            to_do = "name another database in REDIS_URL"
        elif "without any password configured" in str(error):
            to_do = "leave the password out of REDIS_URL, or put the user before it"
        elif "certificate" in str(error):
            to_do = "see the host and the ssl_ parameters in REDIS_URL"
        elif to_do == TO_DO_WITH_REDIS[None] and getattr(redis.connection_pool, "sentinels", None) is not None:
            to_do = "see whether it runs, and can be reached at the address that its Sentinels name"
        if isinstance(error.__cause__, NoPrimary):
            to_do = next((each for words, each in TO_DO_WITH_SENTINELS.items() if words in str(error)), "see their log")
        return Health(parts | {"redis": _with(error, to_do)}, error)
    return Health(parts)


async def postgres_health(database: Database, privileges: Privileges) -> Health:
    """Queries Postgres."""
    parts = {"postgres": OK, "schema": UNKNOWN}
    try:
        parts["postgres"] = _fault(await server(database))
        if (missing := await privileges.missing_in_postgres()) is not None:
            # It may not be permitted to read the schema, either.
            return Health(parts | {"postgres": missing}, lacks_privileges=True)
        parts["schema"] = await schema(database)
    except DatabaseUnavailable as error:
        return Health(parts | {"postgres": _with(error, _to_do(error, database))}, error)
    return Health(parts)


def state_of(error: DatabaseUnavailable) -> str | None:
    """Returns Postgres' code for the cause of an error."""
    return None if error.__cause__ is None else sqlstate(error.__cause__)


def _fault(found: Server) -> str:
    if found.version < OLDEST_POSTGRES:
        return f"Postgres is {found.version}, and must be {OLDEST_POSTGRES} or newer"
    if found.encoding != "UTF8":
        return f"the database's encoding is {found.encoding}, and must be UTF8: create it with ENCODING 'UTF8'"
    if found.read_only:
        return "Postgres is read-only: it serves reads; see its default_transaction_read_only"
    return OK


def _to_do(error: DatabaseUnavailable, database: Database) -> str:
    if database.refused is not None or isinstance(error, StandbyMet):
        return "name the primary in DATABASE_URL"
    if isinstance(error, OtherHistory):
        return "wait"
    state = state_of(error)
    if state is None and "certificate" in str(error):
        return "see the host, sslmode and sslrootcert in DATABASE_URL"
    if state is None:
        return "see whether it runs, and is what DATABASE_URL names"
    return next((to_do for prefix, to_do in TO_DO_WITH_POSTGRES.items() if state.startswith(prefix)), "see its log")


def _with(error: Exception, to_do: str) -> str:
    return f"{str(error).removesuffix('.').removesuffix('; try again')}: {to_do}"
