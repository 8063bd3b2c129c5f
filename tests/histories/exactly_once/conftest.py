"""One pair of servers for all of these: each test has pages of its own, and an application of its own."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.faults.postgres_wire import PostgresWire
from tests.faults.redis_wire import RedisWire
from tests.faults.stores import Stores


@pytest.fixture(scope="package")
def stores() -> Iterator[Stores]:
    """Servers of this package's own: other tests need theirs."""
    with Stores.started() as stores:
        yield stores


@pytest.fixture(scope="package")
async def redis_wire(stores: Stores) -> AsyncIterator[RedisWire]:
    """What leads to Redis."""
    async with RedisWire(stores.endpoints.redis_url) as wire:
        yield wire


@pytest.fixture(scope="package")
async def postgres_wire(stores: Stores) -> AsyncIterator[PostgresWire]:
    """What leads to Postgres."""
    async with PostgresWire(stores.endpoints.database_url) as wire:
        yield wire
