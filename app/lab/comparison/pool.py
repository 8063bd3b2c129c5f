"""Connections to the lab's schema. They are asyncpg's own, so that the strategies are measured and not an ORM."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TypeAlias

import asyncpg

from app.availability import available
from app.database_url import DatabaseUrl

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

PATIENCE = timedelta(seconds=30)


@asynccontextmanager
async def open_pool(database_url: str, connections: int) -> AsyncIterator[Pool]:
    """Holds a pool of one to `connections` connections open. Raises DatabaseUnavailable."""
    target = DatabaseUrl.read(database_url)
    async with (
        available(),
        asyncpg.create_pool(
            **target.attempts()[0],
            server_settings=target.settings,
            min_size=1,
            max_size=connections,
            command_timeout=PATIENCE.total_seconds(),
            # Nothing here leaves state on a connection that would have to be reset.
            reset=_kept,
        ) as pool,
    ):
        yield pool


async def _kept(connection: asyncpg.Connection) -> None:
    """Leaves a connection as it is."""
