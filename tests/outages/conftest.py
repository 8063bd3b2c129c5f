"""Two instances behind wires, in each topology, shared by all tests of this folder. Each test makes its own rows."""

from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

from app.embedded import Endpoints
from tests.keyed import keyed
from tests.outages.instance import Pair, fresh_stores, recovered, two_running
from tests.topologies.suite import pytest_generate_tests as pytest_generate_tests
from tests.topologies.suite import topology as topology
from tests.topologies.suite import ways as ways
from tests.topologies.ways import Ways

SHORT = {"FOURWAYS_USERS_TTL": "2", "FOURWAYS_PRODUCTS_TTL": "2"}
"""Lifetimes so short that a test can wait until entries are stale."""


@pytest.fixture(scope="package")
async def stores(servers: Endpoints, ways: Ways) -> AsyncIterator[Endpoints]:
    """Their own stores on the session's servers: they run all the time, and would deliver what others write."""
    async with fresh_stores(servers, 2, ways) as stores:
        yield stores


@pytest.fixture(scope="package")
async def instances(stores: Endpoints, ways: Ways) -> AsyncIterator[Pair]:
    """The two instances, in whatever state the previous test left them."""
    async with two_running(stores, ways, wired=True, **SHORT) as pair:
        yield pair


@pytest.fixture
async def pair(instances: Pair) -> AsyncIterator[Pair]:
    """The two instances, recovered before and after each test, with connections that no other test has used."""
    one, other = instances
    async with keyed(one.service, 1) as (to_one,), keyed(other.service, 1) as (to_other,):
        pair = replace(one, connection=to_one), replace(other, connection=to_other)
        await recovered(pair)
        yield pair
        await recovered(instances)


@pytest.fixture
async def sql(stores: Endpoints) -> AsyncIterator[asyncpg.Connection]:
    """An operator's connection to these stores, as with psql."""
    connection = await asyncpg.connect(stores.database_url)
    yield connection
    await connection.close()
