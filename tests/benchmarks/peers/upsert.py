"""No cache at all: each view is written to Postgres, with the bare driver."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Opens a pool with as many connections as our own service has."""
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=8, max_size=8) as pool:
        await pool.execute("CREATE TABLE IF NOT EXISTS upserted (page text PRIMARY KEY, views bigint NOT NULL)")
        app.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/page-views/{page:path}", status_code=202)
async def count(page: str) -> dict[str, str | int]:
    """Runs one statement."""
    views = await app.state.pool.fetchval(
        "INSERT INTO upserted AS counted VALUES ($1, 1) ON CONFLICT (page) DO UPDATE SET views = counted.views + 1 "
        "RETURNING views",
        page,
    )
    return {"page": page, "views": views}
