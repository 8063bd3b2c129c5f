"""A wire to a pooler, which leads to Postgres."""

from collections.abc import Awaitable, Callable
from typing import Self

from tests.faults.postgres_wire import PostgresWire


class PooledWire(PostgresWire):
    """A wire to the Postgres at `database_url`, through the pooler that `pooled` names for it."""

    def __init__(self, database_url: str, pooled: Callable[[str], Awaitable[str]]) -> None:
        super().__init__(database_url)
        self._database_url, self._pooled = database_url, pooled

    async def __aenter__(self) -> Self:
        await self.move_to(self._database_url)
        return await super().__aenter__()

    async def move_to(self, database_url: str) -> None:
        """Makes new connections lead to another Postgres, through its own pooler."""
        await super().move_to(await self._pooled(database_url))
