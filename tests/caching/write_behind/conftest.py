"""Counters over a real Redis and a real Postgres, as page views use them."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from app.caching import Cache
from app.caching.write_behind import gathering
from app.database import Database
from app.embedded import Endpoints
from tests.caching.write_behind.views import Views, open_views


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes flushers wait only briefly for additions that do not come."""
    monkeypatch.setattr(gathering, "BLOCK", timedelta(milliseconds=5))


@pytest.fixture
async def views(endpoints: Endpoints, opened: Cache, database: Database, impatient: None) -> AsyncIterator[Views]:
    """Page views. Only the test runs the flusher and checks the receipts."""
    async with open_views(endpoints, opened, database) as views:
        yield views
