"""A thousand products of some 300 bytes, in Postgres, and in Redis as the peers keep them."""

from collections.abc import Mapping

import asyncpg
from redis.asyncio import Redis

from app.embedded import Endpoints
from app.products.models import Product
from tests.benchmarks.load import Ask
from tests.conftest import empty

PRODUCTS = 1_000

FILL = """
INSERT INTO products (sku, name, description, price)
SELECT 'SKU-' || to_char(number, 'FM00000'), 'Product ' || number, repeat('Enamel, red. Whistles. ', 5), '19.90'
FROM generate_series(1, $1) AS number
RETURNING sku, name, description, price, version, created_at, updated_at
"""


async def fill(endpoints: Endpoints) -> Mapping[str, bytes]:
    """Empties both stores, adds the products, and returns the JSON of each, by sku."""
    await empty(endpoints)
    connection = await asyncpg.connect(endpoints.database_url)
    rows = [Product.model_validate(dict(row)) for row in await connection.fetch(FILL, PRODUCTS)]
    await connection.close()
    products = {row.sku: row.model_dump_json().encode() for row in rows}
    async with Redis.from_url(endpoints.redis_url) as redis:
        await redis.mset({f"plain:{sku}": payload for sku, payload in products.items()})
    return products


def asks(products: Mapping[str, bytes], *, path: str = "/products", head: str = "") -> list[Ask]:
    """Returns a read of each product."""
    return [Ask(f"{path}/{sku}", payload.decode(), head=head) for sku, payload in products.items()]
