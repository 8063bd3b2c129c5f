"""Whether this instance should get requests, part by part, in the words of whoever said what is wrong.

ready       everything is as it should be
degraded    it serves what it can, and another instance could do no better: a store is down or refuses writes, Redis may
            throw away what was accepted, another Redis is believed, there is no room for idempotency keys, a later
            version has migrated the database
unready     another instance could: its stores are not those of this one (a password or a name that has never worked
            here, a standby, an old primary), a task here is stuck while both stores answer, a migration is missing here

What was right once and is not any more, like a password that is changed, is so for every instance at the same time: it
takes none away. So each store is remembered to have served this process.

What can go wrong: an instance that had a primary, and is alone led to a standby, only says that it is degraded.
"""

import re
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError

from app.availability import said as said_by_postgres
from app.availability import sqlstate
from app.caching import CacheError, CacheUnavailable, Flusher, fitness, trial
from app.caching.errors import REDIS_DOWN
from app.caching.words import code
from app.caching.words import said as said_by_redis
from app.caching.write_behind.receipts import Receipts
from app.errors import DatabaseUnavailable, OtherHistory, StandbyMet
from app.page_views.parking import Blocked, Parking
from app.schema import Schema, schema, server
from app.wiring import Resources

OK = "ok"
STUCK = "stuck"
UNKNOWN = "unknown"
OLDEST_POSTGRES = 15
AS_GOOD_AS_FULL = 0.99
"""A record that there is no room for is never the last byte of it."""

LOGIN = re.compile(r"says (NOAUTH|WRONGPASS|NOPERM|ERR (AUTH|invalid password|(invalid )?DB index))")
"""What Redis says to whom has the wrong password, user or number of a database."""
TO_DO_WITH_REDIS = {
    "NOAUTH": "put its password into REDIS_URL",
    "WRONGPASS": "put the right user and password into REDIS_URL",
    "NOPERM": "permit that to the user of REDIS_URL",
    "READONLY": "name the primary in REDIS_URL",
    "MASTERDOWN": "name the primary in REDIS_URL",
    "MISCONF": "see in its log why its disk takes nothing",
    "OOM": "raise its maxmemory, or see what else is kept in it",
    "LOADING": "wait",
    None: "see whether it runs, and is what REDIS_URL names",
}
TO_DO_WITH_POSTGRES = {
    "28": "put the right user and password into DATABASE_URL",
    "3D": "name the right database in DATABASE_URL",
    "53": "see its log, and its max_connections",
    "57P03": "wait",
    "42501": "grant that to the user of DATABASE_URL",
}


@dataclass(frozen=True, slots=True)
class Readiness:
    """`status` is one of the three words above; `parts` says of each part "ok" (the schema: "current"), or what is
    wrong."""

    status: str
    parts: dict[str, str]


async def readiness(resources: Resources) -> Readiness:
    """Asks both stores, and looks at the tasks."""
    parts = dict.fromkeys(("redis", "postgres"), OK) | {"schema": UNKNOWN} | _tasks(resources)
    parts |= {"breaker": _breaker(resources), "epoch": _epoch(resources)}
    parts |= dict.fromkeys(("eviction", "persistence", "keys"), UNKNOWN)
    elsewhere, answer = False, True
    try:
        fit = await fitness(resources.redis)
        parts |= {"eviction": fit["eviction"], "persistence": fit["persistence"]}
        if fit["version"] != OK:
            parts["redis"] = fit["version"]
        elif fit["role"] != OK:
            parts["redis"] = f"{fit['role']}: {TO_DO_WITH_REDIS['READONLY']}"
        await trial(resources.redis, f"{resources.settings.prefix}views:trial")
        parts["keys"] = await _keys(resources)
    except CacheUnavailable as error:
        parts["redis"] = _with(error, TO_DO_WITH_REDIS.get(code(error.__cause__), "see its log"))
        elsewhere, answer = _is_denied(error) and not resources.breaker.served, False
    try:
        found = await server(resources.database)
        if found.version < OLDEST_POSTGRES:
            parts["postgres"] = f"Postgres is {found.version}, and must be {OLDEST_POSTGRES} or newer"
        elif found.read_only:
            parts["postgres"] = "Postgres is read-only: it serves reads; see its default_transaction_read_only"
        parts["schema"] = await schema(resources.database)
    except DatabaseUnavailable as error:
        parts["postgres"] = _with(error, _to_do(error, resources))
        elsewhere, answer = elsewhere or _is_elsewhere(error, resources), False
    if elsewhere or parts["schema"] == Schema.OLDER or (answer and STUCK in parts.values()):
        return Readiness("unready", parts)
    if parts["schema"] != Schema.CURRENT or any(says != OK for part, says in parts.items() if part != "schema"):
        return Readiness("degraded", parts)
    return Readiness("ready", parts)


def _tasks(resources: Resources) -> dict[str, str]:
    """What each task does. One that goes on, and fails each time, fails of what every instance would get."""
    tasks: dict[str, Flusher | Receipts | Parking] = {
        "flusher": resources.flusher,
        "receipts": resources.page_views.receipts,
        "parking": resources.parking,
    }
    told = {"relay": OK if resources.relay.alive else STUCK}
    for name, task in tasks.items():
        if (trouble := task.trouble) is not None:
            told[name] = str(trouble) if isinstance(trouble, Blocked) else f"fails again and again: {_told(trouble)}"
        else:
            told[name] = OK if task.alive else STUCK
    return told


async def _keys(resources: Resources) -> str:
    """Whether views with a new idempotency key are taken."""
    try:
        fill = (await resources.page_views.backlog()).record_fill
    except CacheUnavailable:
        return UNKNOWN  # Another part says why.
    if fill < AS_GOOD_AS_FULL:
        return OK
    return (
        f"the room for idempotency keys is {fill:.0%} full: page views with a new one are refused; raise "
        "FOURWAYS_KEYS_BYTES, or wait until those of a day ago are gone"
    )


def _told(error: Exception) -> str:
    if isinstance(error, CacheError):
        return str(error).removesuffix(".")
    if isinstance(error, DBAPIError):
        return f"Postgres says: {said_by_postgres(error)}"
    if isinstance(error, REDIS_DOWN):
        return f"Redis {said_by_redis(error)}"
    return f"{type(error).__name__}, and the log says more"


def _breaker(resources: Resources) -> str:
    breaker = resources.breaker
    if breaker.is_open:
        taken = f": another application has the key `{resources.settings.prefix}epoch`: set FOURWAYS_PREFIX"
        return f"open: {breaker.why}{taken if 'WRONGTYPE' in breaker.why else ''}"
    return OK if breaker.closed else "lapsed: the relay has found out nothing for a while"


def _epoch(resources: Resources) -> str:
    """Why this instance is a member of no epoch, and what to do when that lasts."""
    why = resources.breaker.refused
    if why is None or resources.breaker.ours is False:
        return OK if why is None else f"none: {why}"
    return f"none: {why}; if it lasts, give all instances the same REDIS_URL and DATABASE_URL"


def _is_denied(error: CacheUnavailable) -> bool:
    """Whether Redis serves others, and not this process."""
    return error.__cause__ is not None and LOGIN.match(said_by_redis(error.__cause__)) is not None


def _is_elsewhere(error: DatabaseUnavailable, resources: Resources) -> bool:
    """Whether Postgres itself is all right, and this instance is not where it should be."""
    if resources.database.refused is not None:
        return True
    denied = (_state(error) or "").startswith(("28", "3D", "42501"))
    return not resources.database.served and (denied or isinstance(error, StandbyMet))


def _to_do(error: DatabaseUnavailable, resources: Resources) -> str:
    if resources.database.refused is not None or isinstance(error, StandbyMet):
        return "name the primary in DATABASE_URL"
    if isinstance(error, OtherHistory):
        return "wait"
    state = _state(error)
    if state is None:
        return "see whether it runs, and is what DATABASE_URL names"
    return next((to_do for prefix, to_do in TO_DO_WITH_POSTGRES.items() if state.startswith(prefix)), "see its log")


def _state(error: DatabaseUnavailable) -> str | None:
    return None if error.__cause__ is None else sqlstate(error.__cause__)


def _with(error: Exception, to_do: str) -> str:
    return f"{str(error).removesuffix('.').removesuffix('; try again')}: {to_do}"
