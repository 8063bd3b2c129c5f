"""Servers that can be killed, and what leads the application to them, in each topology."""

from collections.abc import AsyncIterator, Iterator

import pytest

from app.embedded import Endpoints
from tests.faults.postgres_wire import PostgresWire
from tests.faults.redis_wire import RedisWire
from tests.faults.stores import Stores
from tests.topologies.suite import pytest_generate_tests as pytest_generate_tests
from tests.topologies.suite import topology as topology
from tests.topologies.suite import ways as ways
from tests.topologies.ways import Ways


@pytest.fixture(scope="module")
def stores() -> Iterator[Stores]:
    """Servers of this module alone: other tests need theirs."""
    with Stores.started() as stores:
        yield stores


@pytest.fixture(scope="module")
async def redis_wire(stores: Stores, ways: Ways) -> AsyncIterator[RedisWire]:
    """The wire to Redis."""
    async with ways.redis(stores.endpoints.redis_url) as wire:
        yield wire


@pytest.fixture(scope="module")
async def postgres_wire(stores: Stores, ways: Ways) -> AsyncIterator[PostgresWire]:
    """The wire to Postgres."""
    async with ways.postgres(stores.endpoints.database_url) as wire:
        yield wire


@pytest.fixture(scope="module")
async def way(stores: Stores, ways: Ways) -> Endpoints:
    """What leads an application without wires to the servers."""
    return await ways.named(stores.endpoints)
