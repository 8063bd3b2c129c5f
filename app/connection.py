"""One connection to Postgres, with limits on every wait, whether it leads through a pooler or not.

A pooler in between accepts few settings at the start of a session, and may ignore others silently. So the limits are
set by a statement. A pooler in transaction mode gives each transaction another session, so no session may be changed:

    its own session     limits once, after the start; statements are prepared under names
    another's           limits in each transaction; statements have no names (`pooled_statement.py`)

Each connection finds out for itself. When a session begins, Postgres tells its process id, so that the client can
cancel. A pooler in any mode invents one, because the client's cancellation must reach it, and not the session that the
client happens to have. So the connection is direct if the process that executes a statement is the one that was told.
The statement that sets the limits makes this its condition: no other session is ever changed.

    direct     BackendKeyData: 4711    SELECT set_config(…) WHERE pg_backend_pid() = 4711     one row: done
    pooler     BackendKeyData: 9012    SELECT set_config(…) WHERE pg_backend_pid() = 9012     no row, nothing set

What can go wrong: a pooler that invents the right number, or passes on that of the session which it used to log in.
Then prepared statements are missing, and `availability.py` says so and ends the connection.
"""

import itertools
import socket
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache
from typing import Any

import asyncpg

from app.database_url import DatabaseUrl
from app.limits import SHARED, Limits
from app.pooled_statement import PooledStatement

LEAVE = timedelta(milliseconds=200)
NUMBERS = itertools.count()
PING = ";"
"""SQLAlchemy's question whether a connection is alive."""
ELSEWHERE = (OSError, asyncpg.CannotConnectNowError, asyncpg.TargetServerAttributeNotMatched)
"""What happens at one host, and may not at the next."""

UNFIT = ("22", "42", "55P02")
"""The SQLSTATEs of a setting that does not exist, cannot be changed, or not to that value. The operator has written it
into the URL, so it must not be taken for a fault of a statement or of a client's values."""


class Connection(asyncpg.Connection):
    """A connection that closes quickly even if the server is silent, and knows what the server reported of itself."""

    is_new = True
    """Whether it has never been used."""
    generation = 0
    """The generation of its pool that it belongs to."""
    limits: Limits | None = None
    """The limits that each transaction must be told, because a pooler may give each another session."""

    def is_misplaced(self, *, writing: bool) -> bool:
        """Whether Postgres has reported that it is a standby or, if `writing`, that its sessions are read-only. It
        reports this at the start of a session, from version 14 on. A pooler reports what it was told some time ago."""
        if self.limits is not None:
            return False
        told = self.get_settings()
        if getattr(told, "in_hot_standby", "off") == "on":
            return True
        return writing and getattr(told, "default_transaction_read_only", "off") == "on"

    def transaction(
        self, *, isolation: Any = None, readonly: bool = False, deferrable: bool = False
    ) -> asyncpg.transaction.Transaction:
        """Returns a transaction. The isolation of a session that is shared may be any."""
        if self.limits is not None and isolation is None:
            isolation = "read_committed"
        return super().transaction(isolation=isolation, readonly=readonly, deferrable=deferrable)

    def set_socket(self, options: Iterable[tuple[int, int, int]]) -> None:
        """Sets options of its socket. A unix socket has none."""
        own = self._transport.get_extra_info("socket")  # type: ignore[attr-defined]  # the stubs hide it
        if own.family != socket.AF_UNIX:
            with socket.fromfd(own.fileno(), own.family, own.type) as same:  # uvloop's own cannot be set.
                for option in options:
                    same.setsockopt(*option)

    async def share(self, limits: Limits, within: timedelta) -> None:
        """From now on, each transaction sets the limits, and no statement has a name. Raises PostgresError if Postgres
        refuses one of the limits."""
        # asyncpg would change this setting of the session, in order to ask for a type.
        self._server_caps = self._server_caps._replace(jit=False)  # type: ignore[has-type]  # the stubs hide it
        await self.execute(limits.for_transaction, timeout=within.total_seconds())
        self.limits = limits

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """Executes a statement. To a BEGIN, it adds the limits."""
        if self.limits is None or not query.startswith("BEGIN"):
            return await super().execute(query, *args, timeout=timeout)
        try:
            return await super().execute(f"{query.rstrip(';')}; {self.limits.for_transaction}", timeout=timeout)
        except asyncpg.PostgresError:
            self.terminate()  # It is in a transaction that nobody would end.
            raise

    async def prepare(self, query: str, **options: Any) -> Any:
        """Has Postgres describe a statement, and keep it if the session is the connection's own."""
        if self.limits is None:
            return await super().prepare(query, **options | {"name": f"fourways_{next(NUMBERS)}"})
        if self.is_in_transaction():
            return PooledStatement(self, await super().prepare(query), self.limits)
        async with self.transaction():
            return PooledStatement(self, await super().prepare(query), self.limits)

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
        """Returns the first row. A ping takes one round trip, although nothing is prepared for it."""
        if query == PING:
            return await self.execute("SELECT")
        return await super().fetchrow(query, *args, **options)

    async def close(self, *, timeout: float | None = None) -> None:
        """Closes the connection within `LEAVE`. SQLAlchemy would allow two seconds for each connection that a deadline
        has broken, and does not check the outcome when it continues without waiting."""
        try:
            await super().close(timeout=min(timeout or LEAVE.total_seconds(), LEAVE.total_seconds()))
        except TimeoutError:
            self.terminate()


async def connect(url: str, timeout: timedelta) -> Connection:
    """Connects to `url`, a postgresql:// URL as libpq accepts it, with limits on every wait. Raises ValueError for a
    URL that `database_url` refuses.

    Of several hosts, the first that answers and is as the URL demands is taken. A silent one takes no more than its
    share of the time for which callers wait (`database.py`).
    """
    target = _read(url)
    *attempts, last = target.attempts()
    for attempt in attempts:
        with suppress(*ELSEWHERE):
            return await _connect(target, attempt, timeout, within=timeout * 0.4 / (len(attempts) + 1))
    return await _connect(target, last, timeout, within=timeout)


@lru_cache
def _read(url: str) -> DatabaseUrl:
    """Reads a URL once, as the settings are: its service file may be gone later."""
    return DatabaseUrl.read(url)


async def _connect(target: DatabaseUrl, arguments: dict[str, Any], timeout: timedelta, within: timedelta) -> Connection:
    """Connects to one host. The client waits a little longer than the server, so that the server's error arrives
    first."""
    settings = dict(target.settings)
    connection: Connection = await asyncpg.connect(
        connection_class=Connection,
        **arguments,
        timeout=min(within, target.connect_timeout or within).total_seconds(),
        statement_cache_size=0,  # Names are given only in a session of its own, by `prepare`.
        command_timeout=timeout.total_seconds() + 1,
        server_settings={"application_name": settings.pop("application_name", "fourways"), "timezone": "UTC"},
    )
    connection.set_socket(target.socket_options)
    limits = Limits.of(settings, timeout)
    try:
        answer = await connection.execute(
            limits.for_session(connection.get_server_pid()), timeout=within.total_seconds()
        )
        if answer == SHARED:
            await connection.share(limits, within)
    except asyncpg.PostgresError as error:
        connection.terminate()
        if not (error.sqlstate or "").startswith(UNFIT):
            raise
        raise asyncpg.ConnectionRejectionError(str(error)) from error
    except BaseException:
        connection.terminate()
        raise
    return connection
