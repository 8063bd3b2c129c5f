"""The application as three processes, with its own servers that can be killed, and that only wires lead to."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.faults.pgbouncer import pgbouncer
from tests.faults.postgres_wire import PostgresWire
from tests.faults.redis_wire import RedisWire
from tests.faults.stores import Stores


@pytest.fixture(scope="module")
def stores() -> Iterator[Stores]:
    """Servers of this module alone: other tests need theirs."""
    with Stores.started() as stores:
        yield stores


@pytest.fixture(scope="module")
async def redis_wire(stores: Stores) -> AsyncIterator[RedisWire]:
    """The wire to Redis."""
    async with RedisWire(stores.endpoints.redis_url) as wire:
        yield wire


@pytest.fixture(scope="module")
async def database_url(stores: Stores, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Where the wire to Postgres leads: directly there, or to a pooler with fewer sessions than there are clients. A
    test selects the pooler with the parameter "pooled"."""
    if getattr(request, "param", "direct") == "direct":
        yield stores.endpoints.database_url
        return
    async with pgbouncer(stores.endpoints.database_url, "transaction", sessions=8) as pooler:
        yield pooler.url


@pytest.fixture(scope="module")
async def postgres_wire(database_url: str) -> AsyncIterator[PostgresWire]:
    """The wire to Postgres."""
    async with PostgresWire(database_url) as wire:
        yield wire
