"""Inventory on a real Redis and a real Postgres."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest

from app.caching import Cache, Lifetimes, Locked, Region, WriteThrough
from app.database import Database
from app.inventory.models import Change, Stock
from app.inventory.store import StockStore
from tests.settled import settled

LIFETIMES = Lifetimes(fresh=timedelta(minutes=5), stale=timedelta(0), absent=timedelta(seconds=30))

Inventory = WriteThrough[str, Change, Stock]
Load = Callable[[str], Awaitable[Stock | Locked[Stock] | None]]


@pytest.fixture
def store(database: Database) -> StockStore:
    """The store."""
    return StockStore(database)


@pytest.fixture
def load(store: StockStore) -> Load:
    """The load function of the cache."""

    async def load(sku: str) -> Stock | Locked[Stock] | None:
        found = await store.load(sku)
        return found.stock if found.unlocked else Locked(found.stock)

    return load


@pytest.fixture
async def region(opened: Cache) -> AsyncIterator[Region[str, Stock]]:
    """The region of the stock."""
    async with Region[str, Stock](
        opened,
        "stock",
        Stock,
        lifetimes=LIFETIMES,
        settled=settled,
    ) as region:
        yield region


@pytest.fixture
def inventory(region: Region[str, Stock], load: Load, store: StockStore) -> Inventory:
    """Inventory, wired as in the application."""
    return WriteThrough(region, load=load, save=store.save)
