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
from app.caching import CacheError, CacheUnavailable, Flusher
from app.caching.cluster import Cluster
from app.caching.errors import REDIS_DOWN
from app.caching.trust import UNCHECKED
from app.caching.words import said as said_by_redis
from app.caching.write_behind.recovery import Recovery
from app.cluster_health import cluster_health
from app.errors import DatabaseUnavailable, StandbyMet
from app.page_views.parking import Blocked, Parking
from app.schema import Schema
from app.store_health import OK, UNKNOWN, Health, postgres_health, redis_health, state_of
from app.wiring import Resources

STUCK = "stuck"
AS_GOOD_AS_FULL = 0.99
"""The fill level at which there is no room for another record. The last bytes are never used."""

LOGIN = re.compile(
    r"(.* a Sentinel )?says (NOAUTH|WRONGPASS|NOPERM|ERR (AUTH|invalid password|(invalid )?DB index))|.* do not monitor"
)
"""What Redis answers to a wrong password, user or database number, or its Sentinels to a wrong password or name."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """`status` is one of the three words above. `parts` maps each part to "ok" (the schema: "current") or to its
    fault."""

    status: str
    parts: dict[str, str]


async def readiness(resources: Resources) -> Readiness:
    """Queries both stores and checks the tasks."""
    redis = await _redis(resources)
    keys = UNKNOWN if redis.error else await _keys(resources)
    postgres = await postgres_health(resources.database, resources.privileges)
    parts = {"redis": OK, **postgres.parts, **_tasks(resources)}
    parts |= {"breaker": _breaker(resources), "epoch": _epoch(resources), **redis.parts, "keys": keys}
    elsewhere = _is_elsewhere(redis, postgres, resources)
    answer = redis.error is None and postgres.error is None
    if elsewhere or parts["schema"] == Schema.OLDER or (answer and STUCK in parts.values()):
        return Readiness("unready", parts)
    if parts["schema"] != Schema.CURRENT or any(says != OK for part, says in parts.items() if part != "schema"):
        return Readiness("degraded", parts)
    return Readiness("ready", parts)


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


async def _redis(resources: Resources) -> Health:
    cache, privileges, prefix = resources.cache, resources.privileges, resources.settings.prefix
    if isinstance(cache, Cluster):
        return await cluster_health(cache, privileges, prefix)
    return await redis_health(cache.redis, privileges, prefix)


def _breaker(resources: Resources) -> str:
    """Returns what the first Redis is bypassed for."""
    caches = resources.cache.caches
    trust = next((cache.trust for cache in caches if cache.trust.lost or not cache.trust.held), None)
    if trust is None:
        return OK if caches else "open: no node of the cluster is known"
    if trust.lost:
        taken = f": another application has the key `{resources.settings.prefix}epoch`: set FOURWAYS_PREFIX"
        return f"open: {trust.why}{taken if 'WRONGTYPE' in trust.why else ''}"
    return "lapsed: the relay has found out nothing for a while"


def _epoch(resources: Resources) -> str:
    """Returns "ok", or why this instance is a member of no epoch and what to do if that lasts."""
    identities = [resources.cache.identity, *(cache.identity for cache in resources.cache.caches)]
    identity = next((each for each in identities if each.refused is not None), None)
    if identity is None or (why := identity.refused) is None:
        return OK
    if why == UNCHECKED or identity.ours is False:
        return f"none: {why}"  # It says what to do, or another part does.
    return (
        f"none: {why}; if it lasts, give all instances the same REDIS_URL and DATABASE_URL, or give a copy of the "
        "database another FOURWAYS_PREFIX"
    )


def _is_elsewhere(redis: Health, postgres: Health, resources: Resources) -> bool:
    """Whether a store itself is healthy, and this instance has the wrong one, or may not use it, and never could."""
    cache, database, privileges = resources.cache, resources.database, resources.privileges
    if redis.lacks_privileges and not privileges.complete_in_redis:
        return True
    if postgres.lacks_privileges and not privileges.complete_in_postgres:
        return True
    served = any(each.breaker.served for each in cache.caches)
    if redis.error is not None and not served and _is_denied(redis.error):
        return True
    if not isinstance(postgres.error, DatabaseUnavailable):
        return False
    denied = (state_of(postgres.error) or "").startswith(("28", "3D", "42501"))
    return database.refused is not None or (not database.served and (denied or isinstance(postgres.error, StandbyMet)))


def _is_denied(error: Exception) -> bool:
    """Whether Redis denies access to this process, while it serves others."""
    return error.__cause__ is not None and LOGIN.match(said_by_redis(error.__cause__)) is not None
