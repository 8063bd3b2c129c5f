"""Connections to the lab's schema. They are asyncpg's own, so that the strategies are measured and no ORM."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TypeAlias

import asyncpg

from app.availability import available

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

PATIENCE = timedelta(seconds=30)


@asynccontextmanager
async def open_pool(database_url: str, connections: int) -> AsyncIterator[Pool]:
    """At least one connection, at most so many. Raises DatabaseUnavailable."""
    async with (
        available(),
        asyncpg.create_pool(
            database_url.replace("postgresql+asyncpg://", "postgresql://", 1),
            min_size=1,
            max_size=connections,
            command_timeout=PATIENCE.total_seconds(),
            # Nothing is left behind on a connection here that would have to be taken back.
            reset=_kept,
        ) as pool,
    ):
        yield pool


async def _kept(connection: asyncpg.Connection) -> None:
    """Leaves a connection as it is."""
