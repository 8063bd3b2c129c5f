"""Instances of the application, each with its own wires: what one of them has lost, the other may still have."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from app.embedded import Endpoints
from tests.conftest import empty
from tests.eventually import eventually
from tests.faults.postgres_wire import PostgresWire
from tests.faults.redis_wire import RedisWire
from tests.keyed import Keyed
from tests.migrated_database import migrated_database
from tests.outages.rows import is_relayed
from tests.service import Service, serving
from tests.topologies.ways import STRAIGHT, Ways

PATIENT = {"UVICORN_TIMEOUT_KEEP_ALIVE": "120"}
"""By default, Uvicorn closes a connection after 5 s of idleness; here some are idle for the length of an outage."""
LOOK = r"max\(id\) FROM outbox"
"""The statement at the beginning of a relay's poll."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A process of the application, the wires between it and its stores, and a connection to it."""

    service: Service
    redis: RedisWire
    postgres: PostgresWire
    connection: Keyed

    async def readiness(self) -> tuple[int, Any]:
        """Returns the status and the body of /health/ready."""
        answer = await self.connection.ask("/health/ready")
        return answer.status, answer.json()


Pair = tuple[Instance, Instance]


@asynccontextmanager
async def fresh_stores(servers: Endpoints, number: int, ways: Ways = STRAIGHT) -> AsyncIterator[Endpoints]:
    """Yields a new, migrated database, and the emptied database of Redis with this number, or an emptied cluster."""
    async with migrated_database(servers.database_url) as database_url:
        stores = Endpoints(servers.redis_url.replace("?db=0", f"?db={number}"), database_url)
        await empty(stores)
        yield await ways.stores(stores)


async def is_carried(instance: Instance) -> bool:
    """Whether no view waits for the database."""
    answer = await instance.connection.ask("/write-behind")
    return answer.status == 200 and bool(answer.json()["backlog"] == 0)


@asynccontextmanager
async def running(
    stores: Endpoints, ways: Ways = STRAIGHT, *, wired: bool = True, **settings: str
) -> AsyncIterator[Instance]:
    """Runs one instance on these stores until it is ready to serve; `settings` are environment variables.

    If not `wired`, it reaches its stores as directly as it can: a wire reports a closed connection a little later.
    """
    async with ways.redis(stores.redis_url) as redis, ways.postgres(stores.database_url) as postgres:
        named = Endpoints(redis.url, postgres.url) if wired else await ways.named(stores)
        async with serving(named.redis_url, named.database_url, workers=1, **PATIENT, **settings) as service:
            connection = await Keyed.to(service.url)
            yield Instance(service, redis, postgres, connection)
            await connection.close()
            # It stops sooner when it need not wait for anybody.
            redis.heal()
            postgres.heal()


@asynccontextmanager
async def two_running(
    stores: Endpoints, ways: Ways = STRAIGHT, *, wired: bool = True, **settings: str
) -> AsyncIterator[Pair]:
    """Runs two instances on the same stores."""
    async with (
        running(stores, ways, wired=wired, **settings) as one,
        running(stores, ways, wired=wired, **settings) as other,
    ):
        yield one, other


async def recovered(instances: Sequence[Instance]) -> float:
    """Heals all wires, and returns when the instances are ready, with the seconds that it took."""
    for instance in instances:
        instance.redis.heal()
        instance.postgres.heal()

    async def are_ready() -> bool:
        return all([(await instance.readiness())[1]["status"] == "ready" for instance in instances])

    return await eventually(are_ready)


async def all_told(wires: Sequence[PostgresWire], sql: asyncpg.Connection) -> None:
    """Returns when Redis was told of all changes, and the relay at each wire knows. A relay may have polled while
    another one had changes to deliver; without Postgres, it would not believe Redis then."""
    await eventually(lambda: is_relayed(sql))
    looks = [wire.count(LOOK) for wire in wires]

    async def have_looked() -> bool:
        return all(wire.count(LOOK) >= before + 2 for wire, before in zip(wires, looks, strict=True))

    await eventually(have_looked)
