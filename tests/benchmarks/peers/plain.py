"""The base of all ratios: a FastAPI route that returns the result of a Redis `GET`, and does nothing else."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Query, Response
from redis.asyncio import Redis

redis = Redis.from_url(os.environ["REDIS_URL"])


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Closes the client at the end; it connects by itself."""
    yield
    await redis.aclose()


app = FastAPI(lifespan=lifespan)


@app.get("/products/{sku}")
async def read(sku: str) -> Response:
    """Sends one GET, and returns the bytes unchanged."""
    return Response(await redis.get(f"plain:{sku}"), media_type="application/json")


@app.get("/products")
async def read_many(sku: Annotated[list[str], Query()]) -> Response:
    """Sends one MGET, and returns the bytes unchanged."""
    found = await redis.mget([f"plain:{one}" for one in sku])
    return Response(
        b'{"items":[' + b",".join(payload for payload in found if isinstance(payload, bytes)) + b'],"missing":[]}',
        media_type="application/json",
    )
