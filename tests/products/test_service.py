"""Products on a real Redis and a real Postgres: the cache loads rows itself, and no race brings an old row back."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pytest

from app.caching import Cache, Lifetimes, Outcome, ReadThrough, Region
from app.database import Database
from app.products.models import NewProduct, Product
from app.products.service import Products
from app.products.store import ProductStore
from tests.readings import readings
from tests.settled import settled

LIFETIMES = Lifetimes(fresh=timedelta(minutes=5), stale=timedelta(minutes=5), absent=timedelta(seconds=30))
CUP = NewProduct(sku="CUP", name="Cup", price="6.20")
POT = NewProduct(sku="POT", name="Pot", price="24.50")


@pytest.fixture
def store(database: Database) -> ProductStore:
    """The store."""
    return ProductStore(database)


@pytest.fixture
async def region(opened: Cache) -> AsyncIterator[Region[str, Product]]:
    """The region of products."""
    async with Region[str, Product](opened, "products", Product, lifetimes=LIFETIMES, settled=settled) as region:
        yield region


async def test_a_slow_load_of_many_rows_brings_none_of_them_back(
    store: ProductStore, region: Region[str, Product]
) -> None:
    """R misses CUP and POT, reads both, and stalls
                                        W changes CUP's price, commits, invalidates, and answers
    R fills both: CUP's fill must be refused, POT's must not
    """
    loaded, go = asyncio.Event(), asyncio.Event()

    async def slow(skus: Sequence[str]) -> dict[str, Product]:
        rows = {sku: row for sku, row in (await store.get_many(skus)).items() if isinstance(row, Product)}
        loaded.set()
        await go.wait()
        return rows

    products = Products(ReadThrough(region, load=slow), store)
    cup, pot = await products.create(CUP), await products.create(POT)
    reader = asyncio.create_task(products.get_many(["CUP", "POT"]))
    await loaded.wait()

    changed = await products.change("CUP", {"price": "7.00"}, None)

    go.set()
    found = readings(await reader)
    assert [reading.version for reading in found] == [cup.version, pot.version]
    assert [reading.stored for reading in found] == [False, True]
    assert (await products.get("CUP")).version == changed.version
    assert (await products.get("POT")).version == pot.version


async def test_a_bad_sku_does_not_spoil_the_reads_batched_with_it(
    store: ProductStore, region: Region[str, Product]
) -> None:
    """The Redis client cannot encode one of the bad SKUs, and Postgres cannot read the other."""
    await store.insert(CUP)

    async def load(skus: Sequence[str]) -> dict[str, Product]:
        return {sku: row for sku, row in (await store.get_many(skus)).items() if isinstance(row, Product)}

    products = Products(ReadThrough(region, load=load), store)
    answers = await asyncio.gather(*map(products.get, ["CUP", "\ud800", "a\0b", "POT"]), return_exceptions=True)
    assert [isinstance(answer, ValueError) for answer in answers] == [False, True, True, False]
    assert (await products.get("CUP")).outcome is Outcome.HIT
