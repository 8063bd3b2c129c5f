"""One connection to Postgres, with limits on every wait.

A pooler in between accepts few settings at the start of a session, and may ignore others silently. So the limits are
set by a statement, after the start.

What can go wrong: a pooler in transaction mode gives each transaction another session, which has other limits or none.
Then readiness finds the mark of another session. A pooler may not forward what Postgres reports about its role.
"""

import secrets
import socket
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache
from typing import Any

import asyncpg

from app.database_url import DatabaseUrl

LEAVE = timedelta(milliseconds=200)
MARK = "fourways.session"
"""A setting of the session, which has another value in each."""
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
    mark = ""
    """What `fourways.session` is in its session."""

    def is_misplaced(self, *, writing: bool) -> bool:
        """Whether Postgres has reported that it is a standby or, if `writing`, that its sessions are read-only. It
        reports this at the start of a session, from version 14 on. A pooler in between may not forward it."""
        told = self.get_settings()
        if getattr(told, "in_hot_standby", "off") == "on":
            return True
        return writing and getattr(told, "default_transaction_read_only", "off") == "on"

    def set_socket(self, options: Iterable[tuple[int, int, int]]) -> None:
        """Sets options of its socket. A unix socket has none."""
        own = self._transport.get_extra_info("socket")  # type: ignore[attr-defined]  # the stubs hide it
        if own.family != socket.AF_UNIX:
            with socket.fromfd(own.fileno(), own.family, own.type) as same:  # uvloop's own cannot be set.
                for option in options:
                    same.setsockopt(*option)

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
    """Connects to one host.

    Postgres itself ends a statement after `timeout` (after half of it if it waits for a lock), and a transaction that
    was idle for as long: a process that was stopped midway must not keep its locks. The client waits a little longer,
    so that the server's error arrives first.
    """
    settings = dict(target.settings)
    connection: Connection = await asyncpg.connect(
        connection_class=Connection,
        **arguments,
        timeout=min(within, target.connect_timeout or within).total_seconds(),
        command_timeout=timeout.total_seconds() + 1,
        server_settings={"application_name": settings.pop("application_name", "fourways"), "timezone": "UTC"},
    )
    connection.set_socket(target.socket_options)
    connection.mark = secrets.token_hex(8)
    milliseconds = round(timeout / timedelta(milliseconds=1))
    settings |= {
        "statement_timeout": str(milliseconds),
        "idle_in_transaction_session_timeout": str(milliseconds),
        "lock_timeout": str(max(1, milliseconds // 2)),
        # Overrides the database's default: the lock of a SKU and its row must be read in two snapshots.
        "default_transaction_isolation": "read committed",
        MARK: connection.mark,
    }
    statement = "SELECT " + ", ".join(
        f"set_config({_quoted(name)}, {_quoted(settings[name])}, false)" for name in settings
    )
    try:
        await connection.execute(statement, timeout=within.total_seconds())
    except asyncpg.PostgresError as error:
        connection.terminate()
        if not (error.sqlstate or "").startswith(UNFIT):
            raise
        raise asyncpg.ConnectionRejectionError(str(error)) from error
    except BaseException:
        connection.terminate()
        raise
    return connection


def _quoted(text: str) -> str:
    """Returns an SQL literal that means the same whatever standard_conforming_strings is."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
