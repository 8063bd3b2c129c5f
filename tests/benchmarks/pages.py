"""Realistic page views: a few pages get most of them (Zipf, exponent 1.1, over 10,000 pages)."""

import random

import asyncpg

from app.embedded import Endpoints

PAGES = 10_000
EXPONENT = 1.1


def views(number: int) -> list[str]:
    """Returns `number` views: the same ones each time."""
    weights = [1 / rank**EXPONENT for rank in range(1, PAGES + 1)]
    return random.Random(7).choices([f"page/{rank}" for rank in range(PAGES)], weights, k=number)


async def counted(endpoints: Endpoints) -> int:
    """Returns how many views are in Postgres."""
    connection = await asyncpg.connect(endpoints.database_url)
    try:
        return int(await connection.fetchval("SELECT coalesce(sum(views), 0)::bigint FROM page_views"))
    finally:
        await connection.close()
