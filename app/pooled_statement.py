"""A prepared statement, where a pooler may give each transaction another session.

    prepare    once for each connection: Postgres describes the statement, in a transaction with limits
    fetch      Parse, Bind, Execute and Sync in one message, without a name: no session has to know it

In a transaction, the limits have come with BEGIN. A statement that is a transaction of its own brings them along:

    client    Parse Bind Execute (limits)    Parse Bind Execute (statement)    Sync
    server    ParseComplete … CommandComplete, ParseComplete … CommandComplete, ReadyForQuery

Up to Sync it is one transaction, so a pooler cannot part them, and both take one round trip. The limits return no row,
and asyncpg passes over a completed command before its own.

What can go wrong: a table was altered since Postgres described the statement. Then it is described again
(InvalidCachedStatementError, as without a pooler).
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement
from asyncpg.types import Attribute

from app.limits import Limits

UNREADABLE = (BufferError, asyncpg.ProtocolError)
"""What asyncpg raises for a row that is not as described."""
ANSWERED = (*UNREADABLE, asyncio.CancelledError)
"""What may be raised when there will be an answer, besides Postgres' own errors."""


class PooledStatement:
    """What SQLAlchemy needs of a prepared statement."""

    def __init__(self, connection: asyncpg.Connection, prepared: "PreparedStatement[Any]", limits: Limits) -> None:
        self._connection = connection
        self._prepared = prepared
        self._limits = limits
        self._must_begin = False

    def get_attributes(self) -> tuple[Attribute, ...]:
        """Returns the columns."""
        return self._prepared.get_attributes()

    def get_statusmsg(self) -> str | None:
        """Returns what Postgres said of the last execution."""
        return self._prepared.get_statusmsg()

    async def fetch(self, *args: Any) -> Sequence[Any]:
        """Executes the statement, in a transaction of its own if there is none."""
        try:
            return await self._fetch(args)
        except UNREADABLE as error:
            raise asyncpg.InvalidCachedStatementError("The cached description of a table is old.") from error

    async def _fetch(self, args: Sequence[Any]) -> Sequence[Any]:
        if self._connection.is_in_transaction():
            return await self._prepared.fetch(*args)
        if not self._must_begin:
            try:
                return await self._fetch_with_limits(args)
            except asyncpg.ActiveSQLTransactionError:
                # Transactions begin with another isolation by default, and only BEGIN overrides it. The limits were
                # refused, so the statement was not executed.
                self._must_begin = True
        async with self._connection.transaction():
            return await self._prepared.fetch(*args)

    async def _fetch_with_limits(self, args: Sequence[Any]) -> Sequence[Any]:
        self._connection._transport.write(self._limits.messages)  # type: ignore[attr-defined]  # the stubs hide it
        try:
            return await self._prepared.fetch(*args)
        except BaseException as error:
            # A value may not fit its type: asyncpg then raises a PostgresError without severity. Nothing follows the
            # limits, Postgres waits for a Sync, and the pooler for Postgres. Or the answer is late, and would be taken
            # for that to the next limits.
            if not isinstance(error, ANSWERED) and getattr(error, "severity", None) is None:
                self._connection.terminate()
            raise
