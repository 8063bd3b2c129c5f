"""The connections to one Postgres. The pool gives out no connection to where the name no longer leads, nor to a server
that had the wrong role when the connection was made: such a connection stays alive and would be reused forever.

What can go wrong: `DatabaseUnavailable`, when the pool stops trying to replace connections.
"""

from collections.abc import Callable
from contextlib import AsyncExitStack
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from app.connection import Connection, connect
from app.errors import DatabaseUnavailable

WAIT = timedelta(milliseconds=600)
"""How long a request waits for a connection before it is refused."""
WRITING: ContextVar[bool] = ContextVar("writing", default=False)
"""Whether the connection that this task requests is for writing."""


class Pool:
    """At most `connections` connections to `url`. `counted` is called with the resource of each statement."""

    def __init__(self, url: str, *, connections: int, timeout: timedelta, counted: Callable[[str], None]) -> None:
        self._generation = 0

        async def made() -> Connection:
            generation = self._generation
            connection = await connect(url, timeout)
            connection.generation = generation
            return connection

        def count(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
            counted(context.execution_options.get("resource", "other"))

        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=made,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=WAIT.total_seconds(),
            # Checks that a connection is alive before each use: one round trip with AUTOCOMMIT, three without.
            pool_pre_ping=True,
            isolation_level="AUTOCOMMIT",
        )
        event.listen(self._engine.sync_engine, "before_cursor_execute", count)
        event.listen(self._engine.sync_engine, "checkout", self._well_placed)

    async def connection(self, stack: AsyncExitStack, *, writing: bool) -> AsyncConnection:
        """Returns a connection until the stack ends, for `writing` or not. Raises what SQLAlchemy raises."""
        intent = WRITING.set(writing)
        try:
            return await stack.enter_async_context(self._engine.connect())
        except InvalidRequestError as error:
            # SQLAlchemy stops after two: an old connection, and a new one that was refused, too.
            raise DatabaseUnavailable("Connections to Postgres are being made anew; try again.") from error
        finally:
            WRITING.reset(intent)

    def reconnect(self) -> None:
        """From now on gives out only connections that are made from now on."""
        self._generation += 1

    async def close(self) -> None:
        """Closes all connections."""
        await self._engine.dispose()

    def _well_placed(self, adapted: Any, record: ConnectionPoolEntry, proxy: PoolProxiedConnection) -> None:
        """Has the pool replace a connection that may lead to where the name no longer leads, or that was made while
        Postgres was read-only or a standby: its settings stay as they were, even if Postgres has changed since. A new
        connection is accepted, because its statements report where it leads."""
        connection = proxy.driver_connection
        assert isinstance(connection, Connection)
        if connection.generation != self._generation:
            raise DisconnectionError("It was made before all were to be made anew.")
        if not connection.is_new and connection.is_misplaced(writing=WRITING.get()):
            raise DisconnectionError("It was made when Postgres was a standby, or read-only.")
        connection.is_new = False
