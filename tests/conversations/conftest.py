"""`fourways serve`, once for all tests of this folder, with stores of its own. Each test has a page of its own."""

from collections.abc import AsyncIterator

import pytest

from app.embedded import Endpoints
from tests.outages.instance import fresh_stores
from tests.service import FOURWAYS, Service, serving


@pytest.fixture(scope="package")
async def stores(servers: Endpoints) -> AsyncIterator[Endpoints]:
    """It runs all the time, and would carry what others write."""
    async with fresh_stores(servers, 7) as stores:
        yield stores


@pytest.fixture(scope="package")
async def service(stores: Endpoints) -> AsyncIterator[Service]:
    """One process, with the settings' defaults."""
    async with serving(stores.redis_url, stores.database_url, command=FOURWAYS) as service:
        yield service
