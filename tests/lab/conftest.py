"""The lab's schema, in the tests' own Postgres."""

from collections.abc import AsyncIterator

import pytest

from app.embedded import Endpoints
from app.lab.comparison.pool import Pool, open_pool
from app.lab.comparison.schema import lab_schema


@pytest.fixture
async def lab_endpoints(endpoints: Endpoints) -> AsyncIterator[Endpoints]:
    """Both stores, with the lab's schema, which is dropped at the end."""
    async with lab_schema(endpoints.database_url) as database_url:
        yield Endpoints(endpoints.redis_url, database_url)


@pytest.fixture
async def pool(lab_endpoints: Endpoints) -> AsyncIterator[Pool]:
    """Connections to the lab's schema."""
    async with open_pool(lab_endpoints.database_url, 4) as pool:
        yield pool
