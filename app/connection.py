"""One connection to Postgres, with limits on every wait.

A pooler in between accepts few settings at the start of a session, and may ignore others silently. So the limits are
set by a statement, after the start.

What can go wrong: a pooler in transaction mode gives each transaction another session, which has other limits or none.
Then readiness finds the mark of another session. A pooler may not forward what Postgres reports about its role.
"""

import secrets
from datetime import timedelta

import asyncpg

LEAVE = timedelta(milliseconds=200)
MARK = "fourways.session"
"""A setting of the session, which has another value in each."""


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

    async def close(self, *, timeout: float | None = None) -> None:
        """Closes the connection within `LEAVE`. SQLAlchemy would allow two seconds for each connection that a deadline
        has broken, and does not check the outcome when it continues without waiting."""
        try:
            await super().close(timeout=min(timeout or LEAVE.total_seconds(), LEAVE.total_seconds()))
        except TimeoutError:
            self.terminate()


async def connect(url: str, timeout: timedelta) -> Connection:
    """Connects to `url`, a plain postgresql:// URL as libpq accepts it, with limits on every wait.

    Postgres itself ends a statement after `timeout` (after half of it if it waits for a lock), and a transaction that
    was idle for as long: a process that was stopped midway must not keep its locks. The client waits a little longer,
    so that the server's error arrives first.
    """
    milliseconds = round(timeout / timedelta(milliseconds=1))
    connection: Connection = await asyncpg.connect(
        connection_class=Connection,
        dsn=url.replace("postgresql+asyncpg://", "postgresql://", 1),
        timeout=timeout.total_seconds(),
        command_timeout=timeout.total_seconds() + 1,
        server_settings={"application_name": "fourways", "timezone": "UTC"},
    )
    connection.mark = secrets.token_hex(8)
    limits = {
        "statement_timeout": milliseconds,
        "idle_in_transaction_session_timeout": milliseconds,
        "lock_timeout": max(1, milliseconds // 2),
        # Overrides the database's default: the lock of a SKU and its row must be read in two snapshots.
        "default_transaction_isolation": "read committed",
        MARK: connection.mark,
    }
    try:
        await connection.execute(
            "; ".join(f"SET {name} = '{value}'" for name, value in limits.items()),
            timeout=timeout.total_seconds(),
        )
    except BaseException:
        connection.terminate()
        raise
    return connection
