"""`fourways check`: tries the settings, both stores, and what the service may do there, before anything serves.

It changes nothing: it writes no row and no key, and takes no part in the work of the instances that run.

What can go wrong: what is found now may be gone when the service starts, or be new.
"""

import os
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import cast

from redis.asyncio import Redis
from rich.console import Console
from rich.table import Column, Table
from sqlalchemy import text

from app.caching import CacheUnavailable, open_redis
from app.caching.cluster import Cluster, open_cluster
from app.caching.errors import REDIS_DOWN
from app.caching.redis_url import names_cluster
from app.cluster_health import cluster_health
from app.coherence.epochs import Epochs
from app.coherence.histories import is_of
from app.coherence.holders.member import RECORD
from app.database import Database, open_database
from app.embedded import running_endpoints
from app.errors import DatabaseUnavailable
from app.poller import open_poller
from app.privileges import Privileges
from app.room import lack_in_postgres, lack_in_redis
from app.schema import Schema
from app.settings import Settings
from app.store_health import OK, UNKNOWN, postgres_health, redis_health
from app.unknown_variables import unknown_variables

APART = timedelta(seconds=5)
"""How far the clocks of the stores may be from this machine's."""
PATIENCE = timedelta(seconds=5)

NOW = text("SELECT extract(epoch FROM clock_timestamp())")


async def check(settings: Settings, workers: int) -> dict[str, str]:
    """Returns what is found, part by part, for one more instance with so many workers: "ok", or what is wrong and what
    to do."""
    variables = " ".join(unknown_variables())
    found = {"settings": variables or OK}
    endpoints = None if settings.redis_url else running_endpoints(settings.directory)
    redis_url = settings.redis_url or (endpoints.redis_url if endpoints else None)
    database_url = settings.database_url or (endpoints.database_url if endpoints else None)
    if redis_url is None or database_url is None:
        return found | {"directory": _directory(settings.directory)}  # `fourways serve` starts its own stores there.
    async with (
        open_database(database_url, connections=1, timeout=PATIENCE, counted=lambda resource: None) as database,
        open_poller(database_url, resources=1, timeout=PATIENCE, counted=lambda resource: None) as poller,
    ):
        privileges = Privileges(database, settings.prefix)
        async with _redis(redis_url, settings.prefix) as (cluster, redises):
            if cluster is not None:
                health = await cluster_health(cluster, privileges, settings.prefix)
            else:
                health = await redis_health(redises[0][0], privileges, settings.prefix)
            found |= health.parts
            if health.error is None:
                # Of several nodes, the last that lacks something is shown.
                rooms = [await _room(redis, settings, workers) for redis, _record in redises]
                found |= {
                    part: max((room[part] for room in rooms if part in room), key=OK.__ne__)
                    for part in (rooms[0] if rooms else ())
                }
            found |= await _postgres(database, privileges, settings, workers)
            if found["redis"] == found["schema"] == OK:
                epochs = Epochs(database, poller)
                owners = [await _owner(redis, epochs, record) for redis, record in redises]
                found["owner"] = next((owner for owner in owners if owner != OK), OK)
        return found


@asynccontextmanager
async def _redis(url: str, prefix: str) -> AsyncIterator[tuple[Cluster | None, list[tuple[Redis, str]]]]:
    """Opens one Redis, or all nodes of a cluster that own slots: each with the name of its record."""
    if not names_cluster(url):
        async with open_redis(url, timeout=PATIENCE, connections=1) as redis:
            yield None, [(redis, f"{prefix}epoch")]
        return
    async with open_cluster(url, prefix=prefix, timeout=PATIENCE, connections=1, relayed=True) as cluster:
        names = {node: cluster.name_at(node, prefix + RECORD) for node in cluster.nodes.all}
        yield cluster, [(node.cache.redis, name) for node, name in names.items() if name is not None]


async def _room(redis: Redis, settings: Settings, workers: int) -> dict[str, str]:
    """Returns what is wrong with the clock of a Redis, or with the room that it has for connections."""
    try:
        lack, (seconds, microseconds) = await lack_in_redis(redis, settings, workers), await redis.time()
    except (CacheUnavailable, *REDIS_DOWN) as error:
        return {"clock of redis": f"{UNKNOWN}: {error}"}
    return {"clock of redis": _clock(seconds + microseconds / 1_000_000), "connections to redis": lack or OK}


async def _postgres(database: Database, privileges: Privileges, settings: Settings, workers: int) -> dict[str, str]:
    health = await postgres_health(database, privileges)
    found = {part: OK if says == Schema.CURRENT else says for part, says in health.parts.items()}
    if health.error is not None:
        return found
    try:
        lack = await lack_in_postgres(database, settings, workers)
        async with database.reading("health") as connection:
            found["clock of postgres"] = _clock(float((await connection.execute(NOW)).scalar_one()))
        found["connections to postgres"] = lack or OK
    except DatabaseUnavailable as error:
        return found | {"clock of postgres": f"{UNKNOWN}: {error}"}
    return found


async def _owner(redis: Redis, epochs: Epochs, record: str) -> str:
    """Returns whether what is in this Redis is of this database."""
    try:
        deployment, history = await cast("Awaitable[list[bytes | None]]", redis.hmget(record, "deployment", "history"))
        look = await epochs.look()
    except (CacheUnavailable, DatabaseUnavailable, *REDIS_DOWN) as error:
        return f"{UNKNOWN}: {error}"
    if deployment is None:
        return OK
    if deployment.decode() != look.deployment:
        return "this Redis belongs to another deployment: set FOURWAYS_PREFIX, or name another Redis in REDIS_URL"
    if is_of((history or b"").decode(), look.history):
        return OK
    return (
        "this Redis was last used with another database that has the same origin. If this one is a copy of it, set "
        "FOURWAYS_PREFIX, or name another Redis in REDIS_URL; if this one takes its place, start the service"
    )


def _directory(directory: Path) -> str:
    # `Path.exists` raises for a path inside of a directory that may not be searched.
    there = next(path for path in (directory, *directory.absolute().parents) if os.path.exists(path))  # noqa: PTH110
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return OK
    return f"{directory} cannot be written to: set FOURWAYS_DIRECTORY, or name both stores"


def _clock(theirs: float) -> str:
    apart = timedelta(seconds=theirs - time.time())
    if abs(apart) <= APART:
        return OK
    return (
        f"{abs(apart).total_seconds():.0f} s {'ahead of' if apart > timedelta() else 'behind'} this machine's: set both"
    )


def show(found: dict[str, str], console: Console) -> None:
    """Prints the table."""
    table = Table(Column("what"), Column("found, and what to do", overflow="fold"), box=None)
    for part, says in found.items():
        table.add_row(part, says, style=None if says == OK else "red")
    console.print(table, soft_wrap=False)
