"""`fourways serve`, once for all tests of this folder, with its own stores. Each test uses its own page."""

from collections.abc import AsyncIterator

import pytest

from app.embedded import Endpoints
from tests.outages.instance import fresh_stores
from tests.service import FOURWAYS, Service, serving


@pytest.fixture(scope="package")
async def stores(servers: Endpoints) -> AsyncIterator[Endpoints]:
    """The service's own stores: it runs all the time, and on shared stores it would flush the views of other tests."""
    async with fresh_stores(servers, 7) as stores:
        yield stores


@pytest.fixture(scope="package")
async def service(stores: Endpoints) -> AsyncIterator[Service]:
    """One process, with default settings."""
    async with serving(stores.redis_url, stores.database_url, command=FOURWAYS) as service:
        yield service
