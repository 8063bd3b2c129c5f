"""The connections to one Postgres. None is given out that leads where its name does not lead any more, or to a server
that was in the wrong role when it was made: such a connection lives on by itself, and would come back for ever.

What can go wrong: `DatabaseUnavailable`, when the pool gives up to make connections anew.
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
"""How long a request waits for a connection before it is told to come back."""
WRITING: ContextVar[bool] = ContextVar("writing", default=False)
"""Whether the connection that this task takes is to write."""


class Pool:
    """At most so many `connections` to `url`. `counted` is told the resource of each statement."""

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
            # Asks whether a connection still lives before it is used: one round trip with AUTOCOMMIT, else three.
            pool_pre_ping=True,
            isolation_level="AUTOCOMMIT",
        )
        event.listen(self._engine.sync_engine, "before_cursor_execute", count)
        event.listen(self._engine.sync_engine, "checkout", self._well_placed)

    async def connection(self, stack: AsyncExitStack, *, writing: bool) -> AsyncConnection:
        """A connection until the stack ends, `writing` or not. Raises what SQLAlchemy raises."""
        intent = WRITING.set(writing)
        try:
            return await stack.enter_async_context(self._engine.connect())
        except InvalidRequestError as error:
            # It gives up after two: an old connection, and a new one that was not to be kept, either.
            raise DatabaseUnavailable("Connections to Postgres are being made anew; try again.") from error
        finally:
            WRITING.reset(intent)

    def reconnect(self) -> None:
        """Whoever asks for a connection from here on gets one that is made from here on."""
        self._generation += 1

    async def close(self) -> None:
        """Closes all connections."""
        await self._engine.dispose()

    def _well_placed(self, adapted: Any, record: ConnectionPoolEntry, proxy: PoolProxiedConnection) -> None:
        """Has a connection replaced that may lead to where the name does not lead any more, or that was made while
        Postgres took no writes, or was a standby: it stays as it is when Postgres has changed long since. Of a new one,
        its statements say where it leads."""
        connection = proxy.driver_connection
        assert isinstance(connection, Connection)
        if connection.generation != self._generation:
            raise DisconnectionError("It was made before all were to be made anew.")
        if not connection.is_new and connection.is_misplaced(writing=WRITING.get()):
            raise DisconnectionError("It was made when Postgres was a standby, or read-only.")
        connection.is_new = False
