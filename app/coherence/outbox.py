"""The outbox in Postgres: SQL only."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import ARRAY, BigInteger, any_, bindparam, delete, exists, func, literal, select, update

from app.coherence.epochs import Epoch
from app.coherence.models import epochs, outbox
from app.database import Database
from app.look import Look
from app.row_tag import EPOCH

BATCH = 2000
SWEPT = 20_000
LAST = 2**63 - 1
"""The largest possible id."""
KEPT = timedelta(seconds=60)
"""How long done rows are kept, so that they can be delivered again to a Redis that went back in time."""

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
    """A change of a row of a cached table. `version` is the row's new version."""

    id: int
    resource: str
    key: str
    version: int


@dataclass(slots=True)
class Taken:
    """Changes that this instance has taken. `left` are those that it could not deliver, and does not mark as done."""

    changes: list[Change]
    left: list[Change] = field(default_factory=list)


class Outbox:
    """The changes that the caches may not know of yet. A standby may lack some, so queries there raise StandbyMet."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def taken(self, epoch: Epoch, after: int = 0) -> AsyncIterator[Taken]:
        """Takes at most `BATCH` undone changes behind the id `after`, oldest first. They are done when the block ends,
        except for those that it has left, and undone again when it raises.

        It takes none if `epoch` is no longer the database's current one. Otherwise:

            A is a member of the epoch of X         B begins the next epoch with Y, and fills Y
            A takes a row, invalidates in X, and marks the row done: nobody invalidates in Y

            the database is restored and assigns a version a second time; A's poll has not noticed yet
            A takes W's row, but Redis keeps the lost row of that version; W, which waits for the row, would answer

        Other instances skip the taken rows. The rows stay locked until the caches have been invalidated, so a process
        that dies in between loses none.
        """
        undone = (
            select(outbox.c.id)
            .where(outbox.c.done_at.is_(None), outbox.c.id > after)
            .order_by(outbox.c.id)
            .limit(BATCH)
            .with_for_update(skip_locked=True)
        )
        newest = select(func.max(epochs.c.n)).scalar_subquery()
        done = (
            update(outbox)
            .where(outbox.c.id.in_(undone), EPOCH.element == epoch.token, newest == epoch.n)
            .values(done_at=func.now())
            .returning(outbox.c.id, outbox.c.resource, outbox.c.key, outbox.c.version)
        )
        async with self._database.writing("outbox") as connection:
            taken = Taken(sorted(Change(*row) for row in await connection.execute(done)))
            yield taken
            if taken.left:
                left = [change.id for change in taken.left]
                await connection.execute(
                    update(outbox).where(outbox.c.id == any_(literal(left, ARRAY(BigInteger)))).values(done_at=None)
                )

    async def undone(self, newest: int) -> bool:
        """Returns whether a row up to `newest` is undone. A plain SELECT also sees rows that another instance took."""
        (row,) = await self._database.look("outbox", ANY_UNDONE, {"newest": newest})
        return bool(row["undone"])

    async def waits(self, resource: str, key: str) -> bool:
        """Returns whether a change of this key is undone."""
        (row,) = await self._database.look("outbox", WAITS, {"resource": resource, "key": key})
        return bool(row["undone"])

    async def kept(self, *, undone_up_to: int | None = None) -> AsyncIterator[list[Change]]:
        """Yields all kept changes, done or not, or only the undone ones up to an id. Includes those that another
        instance has taken. Oldest first, at most `BATCH` at a time."""
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
        """Removes rows that have been done for longer than `KEPT`; at most `SWEPT` of them, to keep it short."""
        old = (
            select(outbox.c.id)
            .where(outbox.c.done_at < func.now() - KEPT)
            .limit(SWEPT)
            .with_for_update(skip_locked=True)
        )
        async with self._database.writing("outbox") as connection:
            await connection.execute(delete(outbox).where(outbox.c.id.in_(old)))
