"""Postgres: the engine, its limits, and the two ways to use a connection.

    async with database.reading("users") as connection:    one statement, without BEGIN and COMMIT
    async with database.writing("users") as connection:    a transaction, committed when the block ends

A store method is one such block: when it returns, its change is committed. (A session that commits in a `yield`
dependency commits after the client has its answer.)

What can go wrong: `DatabaseUnavailable`, for everything caused by the state of Postgres and not by the statement:
refused, silent, starting, out of connections, a lock or a statement that took too long. When Postgres falls silent, a
caller learns it within about half the timeout, and later callers at once.

A name may lead elsewhere than before: to a standby, or to the primary of another history. The statements of `look` and
`change` report where they ran, and `pool.py` discards a connection that leads to the wrong place.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import MetaData
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningDelete, ReturningInsert, ReturningUpdate

from app.availability import available, ends_connection, in_time, unavailability
from app.errors import DatabaseUnavailable, OtherHistory, OutcomeUnknown, StandbyMet
from app.look import TIMELINE, Look
from app.pool import Pool

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""All tables. The migrations are compared with them."""

Row = dict[str, Any]
"""The columns of a row, by name."""
Returning = ReturningInsert[Any] | ReturningUpdate[Any] | ReturningDelete[Any]
"""A statement that changes rows and returns columns of them."""

logger = logging.getLogger(__name__)

CLOSING = timedelta(seconds=2)
FAILURES = 3
SILENCE = timedelta(milliseconds=200)
"""After `FAILURES` consecutive failures to get a connection, none is attempted for `SILENCE`."""


class Database:
    """A pool of connections, and the counting of its use."""

    def __init__(
        self,
        url: str,
        *,
        connections: int,
        timeout: timedelta,
        within: timedelta | None,
        counted: Callable[[str], None],
        committed: Callable[[str], None],
    ) -> None:
        self._pool = Pool(url, connections=connections, timeout=timeout, counted=counted)
        # Writers that wait for each other's rows must leave connections for readers.
        self._writers = asyncio.Semaphore(max(min(connections, 2), connections * 3 // 4))
        self._patience = timeout.total_seconds()
        self._within = self._patience * 0.45 if within is None else within.total_seconds()
        self._committed = committed
        self._silent_until = float("-inf")
        self._silent = DatabaseUnavailable("The database does not answer.")
        self._failures = 0
        self.timeline: str | None = None
        """The timeline of the trusted history, eight hexadecimal digits; None accepts any."""
        self.epoch: str | None = None
        """The token of the trusted epoch; None accepts any."""
        self.refused: str | None = None
        """Why this database must not be queried: it is an old primary."""
        self.served = False
        """Whether it has ever answered this process as a primary."""

    async def look(self, resource: str, look: Look, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """Runs a query, counted for `resource`, and returns its rows. Raises StandbyMet and OtherHistory."""
        async with self.reading(resource) as connection:
            return await self.look_on(connection, look, parameters)

    async def look_on(
        self, connection: AsyncConnection, look: Look, parameters: Mapping[str, Any] | None = None
    ) -> list[Row]:
        """Does the same on a connection that the caller has already."""
        rows = (await connection.execute(look.statement, parameters)).all()
        self._judge(rows[0][0])
        return look.found(rows)

    async def change(self, connection: AsyncConnection, statement: Returning) -> Row | None:
        """Changes at most one row. Returns what the statement returns of it, or None if there was none. Raises
        OtherHistory; then the transaction must not commit:

            the database is restored, and assigns versions a second time; W's poll has not noticed yet
            W's change gets the version of a lost row, and Redis takes the cached lost row for it
        """
        row = (await connection.execute(statement.returning(TIMELINE))).one_or_none()
        if row is None:
            return None
        found = dict(row._mapping)
        self._judge(found.pop(TIMELINE.name))
        if self.epoch is not None and found.get("epoch", self.epoch) != self.epoch:
            raise OtherHistory("Postgres is another one than a moment ago, or is used with another Redis; try again.")
        return found

    def _judge(self, timeline: str | None) -> None:
        if timeline is None:
            raise StandbyMet("Postgres is a standby: what it knows may be old; try again.")
        if self.timeline not in (None, timeline):
            raise OtherHistory(
                f"Postgres is at timeline {int(timeline, 16)}, and this instance believes what it knew at timeline "
                f"{int(self.timeline, 16)}; try again."
            )
        self.served = True

    @asynccontextmanager
    async def reading(self, resource: str, *, as_writer: bool = False) -> AsyncIterator[AsyncConnection]:
        """Yields a connection on which each statement is its own transaction, counted for `resource`. With `as_writer`
        it is one that a writer would get."""
        async with available(), asyncio.timeout(self._within), self._connection(writing=as_writer) as connection:
            yield await connection.execution_options(resource=resource)

    @asynccontextmanager
    async def writing(self, resource: str, within: timedelta | None = None) -> AsyncIterator[AsyncConnection]:
        """Yields a connection in a transaction. It commits when the block ends, and rolls back when the block raises or
        lasts longer than `within` (None: the default of this database).

        Raises OutcomeUnknown when the connection is lost during COMMIT.
        """
        longest = self._within if within is None else within.total_seconds()
        async with available(), self._writer(), self._connection(writing=True) as connection:
            await connection.execution_options(isolation_level="READ COMMITTED", resource=resource)
            async with in_time(longest):
                transaction = await connection.begin()
                try:
                    yield connection
                except BaseException:
                    await transaction.rollback()
                    raise
            try:
                async with available(), in_time(self._within):
                    await transaction.commit()
            except DatabaseUnavailable as error:
                raise OutcomeUnknown(
                    "The database was lost while it committed: the change may be made, or not."
                ) from error
            self._committed(resource)

    @asynccontextmanager
    async def _connection(self, *, writing: bool) -> AsyncIterator[AsyncConnection]:
        if self.refused is not None:
            raise DatabaseUnavailable(self.refused)
        if time.monotonic() < self._silent_until:
            raise DatabaseUnavailable(str(self._silent)) from self._silent.__cause__
        async with AsyncExitStack() as stack:
            try:
                # This may wait three times: for a turn, until an old connection proves dead, and for a new connection.
                async with asyncio.timeout(self._patience * 0.4):
                    connection = await self._pool.connection(stack, writing=writing)
            except (PoolTimeout, DatabaseUnavailable):
                raise  # Postgres still answers others.
            except Exception as error:
                # Otherwise each queued caller would find out for itself, one after the other.
                self._failures += 1
                if self._failures >= FAILURES:
                    self._silent_until = time.monotonic() + SILENCE.total_seconds()
                    self._silent = DatabaseUnavailable(unavailability(error) or "The database does not answer.")
                    self._silent.__cause__ = error
                raise
            self._failures = 0
            try:
                yield connection
            except Exception as error:
                if ends_connection(error):
                    await connection.invalidate()
                raise

    @asynccontextmanager
    async def _writer(self) -> AsyncIterator[None]:
        try:
            await asyncio.wait_for(self._writers.acquire(), self._patience)
        except TimeoutError as error:
            raise DatabaseUnavailable("Too many writes are under way.") from error
        try:
            yield
        finally:
            self._writers.release()

    def believe(self, timeline: int, epoch: str | None) -> None:
        """From now on accepts only statements that run at this timeline, and changes in this epoch, on connections that
        are made from now on."""
        self.timeline, self.epoch = f"{timeline:08X}", epoch
        self.reconnect()

    def reconnect(self) -> None:
        """From now on gives out only connections that are made from now on."""
        self._pool.reconnect()

    async def close(self) -> None:
        """Closes the pool. Waits for at most `CLOSING` if Postgres does not answer."""
        try:
            await asyncio.wait_for(self._pool.close(), CLOSING.total_seconds())
        except TimeoutError:
            logger.warning("Postgres did not see its connections closed.")


@asynccontextmanager
async def open_database(
    url: str,
    *,
    connections: int,
    timeout: timedelta,
    within: timedelta | None = None,
    counted: Callable[[str], None],
    committed: Callable[[str], None] = lambda resource: None,
) -> AsyncIterator[Database]:
    """Opens a pool of at most `connections`, and closes it when the block ends. `counted` is called with the resource
    of each statement, `committed` with that of each committed transaction.

    `timeout` bounds a statement and the waits before it. `within` bounds all work on one connection; by default it is
    less than half of `timeout`, because a client waits.
    """
    database = Database(
        url, connections=connections, timeout=timeout, within=within, counted=counted, committed=committed
    )
    try:
        yield database
    finally:
        await database.close()
