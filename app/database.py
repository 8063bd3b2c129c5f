"""Postgres: the engine, its limits, and the two ways to use a connection.

    async with database.reading("users") as connection:    one statement, without BEGIN and COMMIT
    async with database.writing("users") as connection:    a transaction, committed when the block ends

A store method is one such block: when it returns, it is committed. (A session that commits in a `yield` dependency
commits after the client has had its answer.)

What can go wrong: `DatabaseUnavailable`, for everything that is Postgres' state and not the statement's fault: refused,
silent, starting, out of connections, a lock or a statement that took too long. When Postgres falls silent, whoever asks
learns it within about half the timeout, and who asks next, at once.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
from sqlalchemy import MetaData, event
from sqlalchemy.exc import DBAPIError, DisconnectionError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app.errors import DatabaseUnavailable, OutcomeUnknown

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""All tables, for the migrations to compare with."""

# The classes of SQLSTATE that speak of the server's state: connection, resources, operator intervention, system error,
# transaction roll-back (a deadlock), read-only (a failover) or aborted transactions, an object in use or a lock that is
# not to be had, a password or a database that it does not know, an error of its own.
UNAVAILABLE = ("08", "25", "28", "40", "53", "55", "57", "58", "3D000", "XX")
# Those that speak of the values: they cannot be, break a constraint, are too large, or a trigger does not like them.
REFUSED = ("22", "23", "54", "P0")
# The table was altered since the statement was prepared: the next try prepares it anew.
ALTERED = "0A000"
# A table, a column or a function is not there: a migration is missing.
UNMIGRATED = ("42P01", "42703", "42883")

logger = logging.getLogger(__name__)

CLOSING = timedelta(seconds=2)
LEAVE = timedelta(milliseconds=200)
POOL_WAIT = timedelta(milliseconds=600)
"""How long a request waits for a connection before it is told to come back."""
FAILURES = 3
SILENCE = timedelta(milliseconds=200)
"""When so many connections one after the other were not to be had, nobody asks for one for so long."""


class Database:
    """A pool of connections, and what is counted of their use."""

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
        self._generation = 0

        async def made() -> Any:
            generation = self._generation
            connection = await connect(url, timeout)
            connection.generation = generation
            return connection

        def checked(adapted: Any, record: Any, proxy: Any) -> None:
            if proxy.driver_connection.generation != self._generation:
                raise DisconnectionError("It may lead to where the name does not lead any more.")

        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=made,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=POOL_WAIT.total_seconds(),
            # Asks whether a connection still lives before it is used: one round trip with AUTOCOMMIT, else three.
            pool_pre_ping=True,
            isolation_level="AUTOCOMMIT",
        )
        # Writers that wait for each other's rows must leave connections to readers.
        self._writers = asyncio.Semaphore(max(min(connections, 2), connections * 3 // 4))
        self._patience = timeout.total_seconds()
        self._within = self._patience * 0.45 if within is None else within.total_seconds()
        self._committed = committed
        self._silent_until = float("-inf")
        self._failures = 0

        def count(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
            counted(context.execution_options.get("resource", "other"))

        event.listen(self._engine.sync_engine, "before_cursor_execute", count)
        event.listen(self._engine.sync_engine, "checkout", checked)

    @asynccontextmanager
    async def reading(self, resource: str) -> AsyncIterator[AsyncConnection]:
        """A connection on which each statement is a transaction of its own. `resource` is what it is counted for."""
        async with available(), asyncio.timeout(self._within), self._connection() as connection:
            yield await connection.execution_options(resource=resource)

    @asynccontextmanager
    async def writing(self, resource: str) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction: committed at the end of the block, rolled back when the block raises.

        Raises OutcomeUnknown when the connection is lost while it commits.
        """
        async with available(), self._writer(), self._connection() as connection:
            await connection.execution_options(isolation_level="READ COMMITTED", resource=resource)
            async with asyncio.timeout(self._within):
                transaction = await connection.begin()
                try:
                    yield connection
                except BaseException:
                    await transaction.rollback()
                    raise
            try:
                async with available(), asyncio.timeout(self._within):
                    await transaction.commit()
            except DatabaseUnavailable as error:
                raise OutcomeUnknown(
                    "The database was lost while it committed: the change may be made, or not."
                ) from error
            self._committed(resource)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection]:
        if time.monotonic() < self._silent_until:
            raise DatabaseUnavailable("The database does not answer.")
        async with AsyncExitStack() as stack:
            try:
                # It may take three waits: for a turn, until an old connection turns out to be dead, and for a new one.
                async with asyncio.timeout(self._patience * 0.4):
                    connection = await stack.enter_async_context(self._engine.connect())
            except PoolTimeout:
                raise  # It answers others.
            except Exception:
                # Those who stand in line would learn it one after the other.
                self._failures += 1
                if self._failures >= FAILURES:
                    self._silent_until = time.monotonic() + SILENCE.total_seconds()
                raise
            self._failures = 0
            yield connection

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

    def reconnect(self) -> None:
        """Whoever asks for a connection from here on gets one that is made from here on."""
        self._generation += 1

    async def close(self) -> None:
        """Closes the pool. A Postgres that does not answer does not hold it up for long."""
        try:
            await asyncio.wait_for(self._engine.dispose(), CLOSING.total_seconds())
        except TimeoutError:
            logger.warning("Postgres did not see its connections closed.")


class Connection(asyncpg.Connection):
    """A connection that does not wait long for a server that has fallen silent to take leave."""

    generation = 0
    """Of which generation of its pool it is."""

    async def close(self, *, timeout: float | None = None) -> None:
        """Takes leave. SQLAlchemy allows two seconds for it, on each connection that a deadline has broken."""
        await super().close(timeout=LEAVE.total_seconds() if timeout is None else min(timeout, LEAVE.total_seconds()))


async def connect(url: str, timeout: timedelta) -> Any:
    """A connection to `url`, a plain postgresql:// address as libpq takes it, with the limits that bound every wait.

    Postgres itself ends a statement after `timeout` (half of it, when it waits for a lock), and a transaction that was
    left idle for as long: a process that was stopped in the middle must not hold its locks. The client waits a little
    longer, so that the server's own word comes first.
    """
    milliseconds = str(round(timeout / timedelta(milliseconds=1)))
    return await asyncpg.connect(
        connection_class=Connection,
        dsn=url.replace("postgresql+asyncpg://", "postgresql://", 1),
        timeout=timeout.total_seconds(),
        command_timeout=timeout.total_seconds() + 1,
        server_settings={
            "application_name": "fourways",
            "statement_timeout": milliseconds,
            "idle_in_transaction_session_timeout": milliseconds,
            "lock_timeout": str(max(1, round(timeout / timedelta(milliseconds=2)))),
            "timezone": "UTC",
            # Whatever the database's default is: the lock of a SKU and its row have to be read with two snapshots.
            "default_transaction_isolation": "read committed",
        },
    )


@asynccontextmanager
async def available() -> AsyncIterator[None]:
    """Turns every way in which Postgres can be away into DatabaseUnavailable; other errors pass."""
    try:
        yield
    except PoolTimeout as error:
        raise DatabaseUnavailable("All connections to the database are in use.") from error
    except (OSError, TimeoutError, asyncpg.InterfaceError) as error:
        raise DatabaseUnavailable("The database does not answer.") from error
    except RuntimeError as error:
        # What uvloop says of a socket that the other end has closed a moment ago.
        if "handler is closed" not in str(error):
            raise
        raise DatabaseUnavailable("The connection to the database is broken.") from error
    except (DBAPIError, asyncpg.PostgresError) as error:
        state = sqlstate(error)
        if state in UNMIGRATED:
            raise DatabaseUnavailable("The database lacks a migration: run `alembic upgrade head`.") from error
        if state == ALTERED and "cached" in str(error):
            raise DatabaseUnavailable("The table was altered a moment ago; try again.") from error
        if (isinstance(error, DBAPIError) and error.connection_invalidated) or (state or "").startswith(UNAVAILABLE):
            raise DatabaseUnavailable("The database does not answer as it should.") from error
        if isinstance(error, SQLAlchemyError) and state is None:
            # No SQLSTATE: the driver gave up before the server had a say (a closed or broken connection, a deadline).
            raise DatabaseUnavailable("The connection to the database is broken.") from error
        raise


def constraint(error: IntegrityError) -> str:
    """The name of the constraint that a statement broke."""
    return str(getattr(getattr(error.orig, "__cause__", None), "constraint_name", ""))


def refusal(error: DBAPIError) -> str | None:
    """Why Postgres refuses the values that it was given, in its own words; None when it is about something else."""
    if not (sqlstate(error) or "").startswith(REFUSED):
        return None
    return str(getattr(error.orig, "__cause__", None) or error.orig).partition("\n")[0]


def sqlstate(error: BaseException) -> str | None:
    """The five characters by which Postgres names an error, None when it was not Postgres that raised it."""
    found = getattr(error, "orig", error)
    # SQLAlchemy's own error for a statement of before an ALTER TABLE says nothing of it: the driver's, its cause, does.
    state = getattr(found, "sqlstate", None) or getattr(getattr(found, "__cause__", None), "sqlstate", None)
    return state if isinstance(state, str) else None


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
    """A pool of at most `connections`, closed at the end. `counted` is told the resource of each statement, and
    `committed` that of each transaction.

    `timeout` bounds a statement and the waits before it. `within` bounds what is done on a connection in all; where
    nothing else is said it is less than half of that, for a client waits.
    """
    database = Database(
        url, connections=connections, timeout=timeout, within=within, counted=counted, committed=committed
    )
    try:
        yield database
    finally:
        await database.close()
