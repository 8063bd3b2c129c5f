"""Whether this instance should receive requests, reported part by part, with the words of the store that refused.

ready       everything works
degraded    the instance serves what it can, and no other instance would do better: a store is down or refuses writes,
            Redis may discard accepted data, another Redis is trusted, there is no room for idempotency keys, a later
            version has migrated the database
unready     another instance would do better: this one has the wrong stores (a password or a name that has never worked
            here, a standby, an old primary), a task here is stuck while both stores answer, a migration is missing here

A setting that worked once and no longer does, such as a changed password, fails for every instance at the same time.
That must not make them all unready, so each store's client remembers whether it has ever served this process.

What can go wrong: if a name leads only this instance from the primary to a standby, it reports degraded, not unready.
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
from app.caching.write_behind.recovery import Recovery
from app.errors import DatabaseUnavailable, OtherHistory, StandbyMet
from app.page_views.parking import Blocked, Parking
from app.schema import Schema, Server, schema, server
from app.wiring import Resources

OK = "ok"
STUCK = "stuck"
UNKNOWN = "unknown"
OLDEST_POSTGRES = 15
AS_GOOD_AS_FULL = 0.99
"""The fill level at which there is no room for another record. The last bytes are never used."""

LOGIN = re.compile(r"says (NOAUTH|WRONGPASS|NOPERM|ERR (AUTH|invalid password|(invalid )?DB index))")
"""What Redis answers to a wrong password, user or database number."""
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
    "26": "set its pool_mode to session",
    "42P05": "set its pool_mode to session",
    "28": "put the right user and password into DATABASE_URL",
    "3D": "name the right database in DATABASE_URL",
    "53": "see its log, and its max_connections",
    "57P03": "wait",
    "42501": "grant that to the user of DATABASE_URL",
}


@dataclass(frozen=True, slots=True)
class Readiness:
    """`status` is one of the three words above. `parts` maps each part to "ok" (the schema: "current") or to its
    fault."""

    status: str
    parts: dict[str, str]


async def readiness(resources: Resources) -> Readiness:
    """Queries both stores and checks the tasks."""
    parts = dict.fromkeys(("redis", "postgres"), OK) | {"schema": UNKNOWN} | _tasks(resources)
    parts |= {"breaker": _breaker(resources), "epoch": _epoch(resources)}
    parts |= dict.fromkeys(("eviction", "persistence", "keys"), UNKNOWN)
    elsewhere, answer = False, True
    try:
        fit = await fitness(resources.cache.redis)
        parts |= {"eviction": fit["eviction"], "persistence": fit["persistence"]}
        if fit["version"] != OK:
            parts["redis"] = fit["version"]
        elif fit["role"] != OK:
            parts["redis"] = f"{fit['role']}: {TO_DO_WITH_REDIS['READONLY']}"
        await trial(resources.cache.redis, f"{resources.settings.prefix}views:trial")
        parts["keys"] = await _keys(resources)
    except CacheUnavailable as error:
        parts["redis"] = _with(error, TO_DO_WITH_REDIS.get(code(error.__cause__), "see its log"))
        elsewhere, answer = _is_denied(error) and not resources.cache.breaker.served, False
    try:
        found = await server(resources.database)
        parts["postgres"] = _postgres(found)
        parts["schema"] = await schema(resources.database)
    except DatabaseUnavailable as error:
        parts["postgres"] = _with(error, _to_do(error, resources))
        elsewhere, answer = elsewhere or _is_elsewhere(error, resources), False
    if elsewhere or parts["schema"] == Schema.OLDER or (answer and STUCK in parts.values()):
        return Readiness("unready", parts)
    if parts["schema"] != Schema.CURRENT or any(says != OK for part, says in parts.items() if part != "schema"):
        return Readiness("degraded", parts)
    return Readiness("ready", parts)


def _postgres(found: Server) -> str:
    if found.version < OLDEST_POSTGRES:
        return f"Postgres is {found.version}, and must be {OLDEST_POSTGRES} or newer"
    if found.encoding != "UTF8":
        return f"the database's encoding is {found.encoding}, and must be UTF8: create it with ENCODING 'UTF8'"
    if not found.own_session:
        return f"A pooler shares the sessions of Postgres: {TO_DO_WITH_POSTGRES['26']}"
    if found.read_only:
        return "Postgres is read-only: it serves reads; see its default_transaction_read_only"
    return OK


def _tasks(resources: Resources) -> dict[str, str]:
    """Returns the state of each task. A task that runs and keeps failing is not stuck: every instance's would fail."""
    tasks: dict[str, Flusher | Recovery | Parking] = {
        "flusher": resources.flusher,
        "receipts": resources.page_views.recovery,
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
    """Returns whether views with a new idempotency key are accepted."""
    try:
        fill = (await resources.page_views.backlog()).record_fill
    except CacheUnavailable:
        return UNKNOWN  # Another part reports the reason.
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
    trust = resources.cache.trust
    if trust.lost:
        taken = f": another application has the key `{resources.settings.prefix}epoch`: set FOURWAYS_PREFIX"
        return f"open: {trust.why}{taken if 'WRONGTYPE' in trust.why else ''}"
    return OK if trust.held else "lapsed: the relay has found out nothing for a while"


def _epoch(resources: Resources) -> str:
    """Returns "ok", or why this instance is a member of no epoch and what to do if that lasts."""
    why = resources.cache.identity.refused
    if why is None or resources.cache.identity.ours is False:
        return OK if why is None else f"none: {why}"
    return f"none: {why}; if it lasts, give all instances the same REDIS_URL and DATABASE_URL"


def _is_denied(error: CacheUnavailable) -> bool:
    """Whether Redis denies access to this process, while it serves others."""
    return error.__cause__ is not None and LOGIN.match(said_by_redis(error.__cause__)) is not None


def _is_elsewhere(error: DatabaseUnavailable, resources: Resources) -> bool:
    """Whether Postgres itself is healthy and this instance is connected to the wrong place."""
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
