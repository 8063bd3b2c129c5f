"""The outbox in Postgres: SQL only."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import bindparam, delete, exists, func, select, update

from app.coherence.models import outbox
from app.database import Database
from app.look import Look
from app.row_tag import EPOCH

BATCH = 2000
SWEPT = 20_000
LAST = 2**63 - 1
"""No id is higher."""
KEPT = timedelta(seconds=60)
"""Rows that are done stay this long: after a Redis that went back in time, they can be carried again."""

UNDONE = outbox.c.done_at.is_(None)
ANY_UNDONE = Look(select(exists().where(UNDONE, outbox.c.id <= bindparam("newest")).label("undone")))
WAITS = Look(
    select(
        exists()
        .where(UNDONE, outbox.c.resource == bindparam("resource"), outbox.c.key == bindparam("key"))
        .label("undone")
    )
)
KEPT_CHANGES = (
    select(outbox.c.id, outbox.c.resource, outbox.c.key, outbox.c.version)
    .where(outbox.c.id > bindparam("after"), outbox.c.id <= bindparam("newest"))
    .order_by(outbox.c.id)
    .limit(BATCH)
)
ALL = Look(KEPT_CHANGES)
ALL_UNDONE = Look(KEPT_CHANGES.where(UNDONE))


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """A row of a cached table changed: `version` is what it became."""

    id: int
    resource: str
    key: str
    version: int


class Outbox:
    """The changes that the caches have not been told of. A standby may not know of them yet: looks raise StandbyMet."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def taken(self, epoch: str) -> AsyncIterator[list[Change]]:
        """At most `BATCH` undone changes, oldest first: done when the block ends, undone again when it raises. None,
        when the database is not in the epoch of this token any more:

            A is a member of the epoch of R1        B begins the next one, with R2, and fills it
            A takes a row, tells R1, and marks it done: nobody would tell R2

            the database is restored, and gives a version out again; A's poll has not seen that yet
            A takes W's row, and Redis keeps the lost row of that version; W, who waits for that, would answer

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
            .where(outbox.c.id.in_(undone), EPOCH.element == epoch)
            .values(done_at=func.now())
            .returning(outbox.c.id, outbox.c.resource, outbox.c.key, outbox.c.version)
        )
        async with self._database.writing("outbox") as connection:
            yield sorted(Change(*row) for row in await connection.execute(done))

    async def undone(self, newest: int) -> bool:
        """Whether a row up to `newest` is undone, also when somebody else has taken it: a plain SELECT sees it."""
        (row,) = await self._database.look("outbox", ANY_UNDONE, {"newest": newest})
        return bool(row["undone"])

    async def waits(self, resource: str, key: str) -> bool:
        """Whether a change of this key is undone."""
        (row,) = await self._database.look("outbox", WAITS, {"resource": resource, "key": key})
        return bool(row["undone"])

    async def kept(self, *, undone_up_to: int | None = None) -> AsyncIterator[list[Change]]:
        """All changes that are still there, done or not, or the undone ones up to an id, also those that somebody has
        taken; oldest first, at most `BATCH` at a time."""
        some, newest = (ALL, LAST) if undone_up_to is None else (ALL_UNDONE, undone_up_to)
        after, size = 0, BATCH
        while size == BATCH:
            rows = await self._database.look("outbox", some, {"after": after, "newest": newest})
            changes = [Change(**row) for row in rows]
            if changes:
                yield changes
                after = changes[-1].id
            size = len(changes)

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
