"""The outbox in Postgres: SQL only."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func, select, update

from app.coherence.models import outbox
from app.database import Database

BATCH = 2000
SWEPT = 20_000
KEPT = timedelta(seconds=60)
"""Rows that are done stay this long: after a Redis that went back in time, they can be carried again."""


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """A row of a cached table changed: `version` is what it became."""

    id: int
    resource: str
    key: str
    version: int


class Outbox:
    """The changes that the caches have not been told of."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[list[Change]]:
        """At most `BATCH` undone changes, oldest first: done when the block ends, undone again when it raises.

        Other instances skip them meanwhile. They stay locked until the caches were told, so that a process which dies
        in between loses none.
        """
        undone = (
            select(outbox.c.id)
            .where(outbox.c.done_at.is_(None))
            .order_by(outbox.c.id)
            .limit(BATCH)
            .with_for_update(skip_locked=True)
        )
        done = (
            update(outbox)
            .where(outbox.c.id.in_(undone))
            .values(done_at=func.now())
            .returning(outbox.c.id, outbox.c.resource, outbox.c.key, outbox.c.version)
        )
        async with self._database.writing("outbox") as connection:
            yield sorted(Change(*row) for row in await connection.execute(done))

    async def sweep(self) -> None:
        """Removes rows that have been done for longer than `KEPT`; at most `SWEPT`, so that it takes no time."""
        old = (
            select(outbox.c.id)
            .where(outbox.c.done_at < func.now() - KEPT)
            .limit(SWEPT)
            .with_for_update(skip_locked=True)
        )
        async with self._database.writing("outbox") as connection:
            await connection.execute(delete(outbox).where(outbox.c.id.in_(old)))
