"""The ledger of page views: which batches were counted, partitioned by the hour of the batch id.

    open     an hour's partition is created with the first batch of that hour, past or future
    floor    partitions below it were dropped, so it is unknown whether a batch of that time was counted
    prune    a partition is dropped and the floor raised above it, in one transaction

A batch is recorded under its id's own hour, whatever any clock says, so every process looks for it in the same place.
No clock alone drops a partition. A partition is dropped when `KEPT` hours were opened after it, the first of them at
least `AGE` ago by Postgres' clock, and all earlier hours can be dropped too. So a step of any clock, including
Postgres', drops nothing early.

What can go wrong: a process whose clock is more than a day behind would make ids below the floor. So ids begin at
`ids_from` at the earliest, which falls below the floor only after half a day, by Postgres' clock and the hours opened.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.availability import said, sqlstate
from app.database import Database
from app.errors import DatabaseUnavailable, Uncountable

logger = logging.getLogger(__name__)

T = TypeVar("T")

KEPT, AGE = 25, timedelta(hours=24)
SOON, HALF = 13, timedelta(hours=12)
"""Half of `KEPT` and `AGE`: hours below `ids_from` are at least halfway to being dropped; others have half the way
left."""
PRUNING = timedelta(minutes=1)
GONE = "The ledger of its hour, {hour:%Y-%m-%d %H}:00 UTC, is gone: whether it was counted cannot be told."

# The hours before the first one that does not satisfy the condition. The newest hour has no `superseded_at` and never
# satisfies it, so the floor, and with it all ids, cannot run ahead of the hours in use.
_OLDEST = """
SELECT hour FROM (
  SELECT hour, bool_and(coalesce({condition}, false)) OVER (ORDER BY hour) AS each_before FROM (
    SELECT hour, row_number() OVER opened - 1 AS newer, lag(created_at) OVER opened AS superseded_at
    FROM ledger_hours WINDOW opened AS (ORDER BY number DESC)
  ) AS hours
) AS judged WHERE each_before
"""
_DOOMED = text(
    _OLDEST.format(condition=f"newer >= {KEPT} AND superseded_at < now() - interval '{AGE.total_seconds()} s'")
    + " ORDER BY hour"
)

IDS_FROM = (
    "greatest((SELECT hour FROM ledger_floor), (SELECT max(hour) + interval '1 hour' FROM ("
    + _OLDEST.format(condition=f"newer >= {SOON} OR superseded_at < now() - interval '{HALF.total_seconds()} s'")
    + ") AS soon))"
)
"""SQL: the earliest time for new ids."""


class _NotThere(Exception):
    """A partition that was opened is gone."""


class Ledger:
    """Opens and drops the partitions of the ledger in `database`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._open: set[datetime] = set()
        self._prune_at = 0.0

    async def record(
        self,
        hours: Iterable[datetime],
        write: Callable[[AsyncConnection], Awaitable[T]],
        within: timedelta | None = None,
    ) -> T:
        """Runs `write` in a transaction in which the ledger has these hours. `within` bounds it, in place of the
        database's default. Raises Uncountable when an hour is below the floor, and what `write` raises."""
        some = set(hours)
        try:
            return await self._record(some, write, within)
        except _NotThere:
            # A partition was dropped or detached since it was opened. If it was pruned, the retry raises Uncountable.
            try:
                await self._finish_detaching(some)
                return await self._record(some, write, within)
            except _NotThere as error:
                raise DatabaseUnavailable("A partition of the ledger goes as soon as it is there.") from error

    async def _record(
        self, hours: set[datetime], write: Callable[[AsyncConnection], Awaitable[T]], within: timedelta | None
    ) -> T:
        await self._open_all(hours)
        try:
            async with self._database.writing("page_views", within) as connection:
                return await write(connection)
        except DBAPIError as error:
            # The error is "no partition of relation applied found for row": no constraint of ours names this table.
            if getattr(getattr(error.orig, "__cause__", None), "table_name", None) != "applied":
                raise
            self._open.clear()
            raise _NotThere from error

    async def _open_all(self, hours: set[datetime]) -> None:
        for hour in sorted(hours - self._open):
            async with self._database.writing("page_views") as connection:
                if not await connection.scalar(text("SELECT open_ledger_hour(:hour)"), {"hour": hour}):
                    raise Uncountable(GONE.format(hour=hour))
            self._open.add(hour)

    async def _finish_detaching(self, hours: set[datetime]) -> None:
        """Finishes a DETACH that someone left half done, so that the partition can be attached again."""
        for hour in sorted(hours):
            async with self._database.writing("page_views") as connection:
                if await connection.scalar(text("SELECT finish_ledger_detach(:hour)"), {"hour": hour}):
                    logger.warning("Somebody has begun to detach the ledger of %s: it is attached again.", hour)

    async def prune(self) -> None:
        """Drops the partitions that are old enough, at most once per `PRUNING`."""
        if time.monotonic() < self._prune_at:
            return
        self._prune_at = time.monotonic() + PRUNING.total_seconds()
        try:
            async with self._database.reading("page_views") as connection:
                doomed = list(await connection.scalars(_DOOMED))
            for hour in doomed:
                await self._drop(hour)
        except DatabaseUnavailable as error:
            logger.warning("Old partitions of the ledger could not be dropped now: %s", error)

    async def _drop(self, hour: datetime) -> None:
        try:
            async with self._database.writing("page_views") as connection:
                # Dropping needs an exclusive lock on the ledger. All other sessions queue behind one that waits for
                # it, and a dump may read the ledger for an hour. So wait only briefly, and try again later.
                await connection.exec_driver_sql("SET LOCAL lock_timeout = '100ms'")
                await connection.execute(text("SELECT drop_ledger_hour(:hour)"), {"hour": hour})
        except DBAPIError as error:
            # A view may depend on the partition. The flush before this has counted; other partitions can be dropped.
            logger.warning("The ledger of %s cannot be dropped: %s", hour, said(error))
        except DatabaseUnavailable as error:
            # A partition may belong to another role, which made it before the owner's function did.
            if error.__cause__ is None or sqlstate(error.__cause__) != "42501":
                raise
            logger.warning("The ledger of %s cannot be dropped: %s", hour, said(error.__cause__))
        self._open.discard(hour)
