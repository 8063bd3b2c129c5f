"""The same route with cashews' decorator: around a function that returns bytes, and around the route itself.

What the database would return is read from where `plain.py` has it, so that no peer pays for Postgres.
"""

import os
from typing import Any

from fastapi import FastAPI, Response
from redis.asyncio import Redis

from app.products.models import Product
from tests.benchmarks.peers.cashews_cache import cache_at, cached

cache = cache_at(os.environ["REDIS_URL"])
redis = Redis.from_url(os.environ["REDIS_URL"])
app = FastAPI()
loads = 0


async def payload(sku: str) -> bytes:
    """Stands in for the database."""
    found = await redis.get(f"plain:{sku}")
    assert isinstance(found, bytes)
    return found


@cached(cache, "bytes:{sku}")
async def load(sku: str) -> bytes:
    """Returns the bytes of a product."""
    global loads
    loads += 1
    return await payload(sku)


@app.get("/products/{sku}")
async def read(sku: str) -> Response:
    """Returns the cached bytes unchanged."""
    return Response(await load(sku), media_type="application/json")


@app.get("/models/{sku}", response_model=Product)
@cached(cache, "model:{sku}")
async def read_model(sku: str) -> dict[str, Any]:
    """Returns the cached product, as FastAPI encodes it."""
    return Product.model_validate_json(await payload(sku)).model_dump()


@app.get("/loads")
async def count() -> int:
    """Returns how often the cache did not have the bytes."""
    return loads
