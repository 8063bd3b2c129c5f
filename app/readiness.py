"""Whether this instance should get requests, part by part.

ready       everything is as it should be
degraded    it serves what it can, and another instance could do no better: a store is down, Redis may throw away what
            was accepted, a later version has migrated the database
unready     another instance could: a task here is stuck while both stores answer, or a migration is missing here
"""

from dataclasses import dataclass

from app.caching import CacheUnavailable, fitness
from app.errors import DatabaseUnavailable
from app.schema import Schema, schema, server_version
from app.wiring import Resources

OK = "ok"
SILENT = "does not answer"
UNKNOWN = "unknown"
OLDEST_POSTGRES = 15


@dataclass(frozen=True, slots=True)
class Readiness:
    """`status` is one of the three words above; `parts` says of each part "ok" (the schema: "current"), or what is
    wrong."""

    status: str
    parts: dict[str, str]


async def readiness(resources: Resources) -> Readiness:
    """Asks both stores, and looks at the tasks."""
    parts = {
        "redis": OK,
        "postgres": OK,
        "schema": UNKNOWN,
        "relay": OK if resources.relay.alive else "stuck",
        "flusher": OK if resources.flusher.alive else "stuck",
        "receipts": OK if resources.page_views.receipts.alive else "stuck",
        "breaker": OK if resources.breaker.closed else f"open: {resources.breaker.why}",
        "eviction": UNKNOWN,
        "persistence": UNKNOWN,
    }
    try:
        fit = await fitness(resources.redis)
        parts |= {"redis": fit["version"], "eviction": fit["eviction"], "persistence": fit["persistence"]}
    except CacheUnavailable:
        parts["redis"] = SILENT
    try:
        parts["schema"] = await schema(resources.database)
        version = await server_version(resources.database)
        if version < OLDEST_POSTGRES:
            parts["postgres"] = f"Postgres is {version}, and must be {OLDEST_POSTGRES} or newer"
    except DatabaseUnavailable:
        parts["postgres"] = SILENT
    stores_answer = SILENT not in (parts["redis"], parts["postgres"])
    if parts["schema"] == Schema.OLDER or (stores_answer and "stuck" in parts.values()):
        return Readiness("unready", parts)
    if parts["schema"] != Schema.CURRENT or any(says != OK for part, says in parts.items() if part != "schema"):
        return Readiness("degraded", parts)
    return Readiness("ready", parts)
