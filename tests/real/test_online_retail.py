"""The catalogue of a real shop, read in the order of a real trace."""

import asyncio
import csv
import gzip
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.embedded import Endpoints
from tests.eventually import eventually
from tests.keep_alive import KeepAlive
from tests.service import REPOSITORY, Service, serving

DATA = REPOSITORY.parent / "shared" / "data"
CATALOGUE = DATA / "products_online_retail_2010_12__2011_04.csv"
READS = DATA / "kv_ecommerce_orm_busy.csv.gz"
READS_SENT = [2_000, pytest.param(25_000, marks=pytest.mark.prove)]

pytestmark = [
    pytest.mark.skipif(not DATA.is_dir(), reason=f"The real data is not here: {DATA} does not exist."),
    pytest.mark.timeout(300),  # 20 s on a quiet machine.
]

Product = dict[str, Any]


@pytest.fixture
async def service(endpoints: Endpoints) -> AsyncIterator[Service]:
    """One process, whose cache entries outlive the test."""
    async with serving(
        endpoints.redis_url,
        endpoints.database_url,
        FOURWAYS_PRODUCTS_TTL="3600",
        FOURWAYS_REDIS_TIMEOUT="30",
        UVICORN_TIMEOUT_KEEP_ALIVE="120",
    ) as service:
        yield service


@pytest.mark.parametrize("sent", READS_SENT)
async def test_each_read_of_a_real_shop_returns_the_row_of_its_catalogue(
    service: Service, sql: asyncpg.Connection, capsys: pytest.CaptureFixture[str], sent: int
) -> None:
    catalogue = _catalogue()
    assert len({product["sku"] for product in catalogue}) == 3403
    assert len({product["sku"].lower() for product in catalogue}) == 3403 - 84

    async with AsyncExitStack() as stack:
        connections = [await KeepAlive.to(service.url) for _ in range(8)]
        for connection in connections:
            stack.push_async_callback(connection.close)

        async def post(connection: KeepAlive, products: Iterator[Product]) -> None:
            for product in products:
                answer = await connection.ask("/products", method="POST", body=product)
                assert answer.status == 201, (product, answer.body)

        statuses: Counter[str] = Counter()

        async def get(connection: KeepAlive, reads: Iterator[Product]) -> None:
            for product in reads:
                answer = await connection.ask(f"/products/{quote(product['sku'])}")
                found = answer.json()
                assert answer.status == 200, (product, answer.body)
                assert {name: found[name] for name in product} == product
                statuses[answer.headers["cache-status"].removeprefix("read-through; ").split("; ttl=")[0]] += 1

        async def is_quiet() -> bool:
            return not await sql.fetchval("SELECT count(*) FROM outbox WHERE done_at IS NULL")

        # All connections share one iterator: each takes the next request when it has its answer.
        products, reads = iter(catalogue), _reads(catalogue, sent)
        await asyncio.gather(*(post(connection, products) for connection in connections))
        await eventually(is_quiet)
        await asyncio.gather(*(get(connection, reads) for connection in connections))
        metrics = (await connections[0].ask("/metrics")).body.decode()

    hits, collapsed = statuses["hit"], sum(n for status, n in statuses.items() if status.endswith("collapsed"))
    misses = statuses.total() - hits - collapsed
    with capsys.disabled():
        print(f"\nOnline Retail: {statuses.total():,} reads, {hits / statuses.total():.2%} hits ({dict(statuses)})")
    assert statuses.total() == sent
    # Nothing expires and nothing is written meanwhile, so every repeated read is a hit: each product is loaded once.
    assert misses == len({product["sku"] for product in _reads(catalogue, sent)})
    counted = _counted(metrics)
    assert counted["hit"] == hits
    assert counted["miss"] == misses
    assert counted.get("collapsed", 0) == collapsed


def _catalogue() -> list[Product]:
    """Returns the rows of the file as request bodies. A blank name becomes the code, and a blank price becomes 0."""
    with CATALOGUE.open(encoding="utf-8", newline="") as file:
        return [
            {
                "sku": row["stock_code"],
                "name": row["description"].strip() or row["stock_code"],
                "price": row["unit_price"].strip() or "0",
            }
            for row in csv.DictReader(file)
        ]


def _reads(catalogue: list[Product], number: int) -> Iterator[Product]:
    """Yields the first reads of the trace. Its n-th distinct key stands for the n-th product of the catalogue, modulo
    the number of products."""
    numbers: dict[str, int] = {}
    with gzip.open(READS, "rt", encoding="utf-8", newline="") as file:
        for row in itertools.islice(csv.DictReader(file), number):
            yield catalogue[numbers.setdefault(row["key"], len(numbers)) % len(catalogue)]


def _counted(metrics: str) -> dict[str, float]:
    """Returns the counters of the product cache, by event."""
    return {
        sample.labels["event"]: sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == "fourways_cache_events_total" and sample.labels["resource"] == "products"
    }
