"""One connection to Postgres, with the limits that bound every wait.

What can go wrong: a pooler in between that takes no settings at the start, or does not pass on what Postgres says of
its role.
"""

from datetime import timedelta

import asyncpg

LEAVE = timedelta(milliseconds=200)


class Connection(asyncpg.Connection):
    """A connection that does not wait long for a server that has fallen silent to take leave, and that knows what
    it was told of the server."""

    is_new = True
    """Whether nobody has used it yet."""
    generation = 0
    """Of which generation of its pool it is."""

    def is_misplaced(self, *, writing: bool) -> bool:
        """Whether Postgres has said that it is a standby, or, which matters to a writer, that its sessions are
        read-only. It says so at the start of a session, from version 14 on; a pooler in between may not pass it on."""
        told = self.get_settings()
        if getattr(told, "in_hot_standby", "off") == "on":
            return True
        return writing and getattr(told, "default_transaction_read_only", "off") == "on"

    async def close(self, *, timeout: float | None = None) -> None:
        """Takes leave. SQLAlchemy allows two seconds for it, on each connection that a deadline has broken, and asks
        nobody what became of it when it goes on without."""
        try:
            await super().close(timeout=min(timeout or LEAVE.total_seconds(), LEAVE.total_seconds()))
        except TimeoutError:
            self.terminate()


async def connect(url: str, timeout: timedelta) -> Connection:
    """A connection to `url`, a plain postgresql:// address as libpq takes it, with the limits that bound every wait.

    Postgres itself ends a statement after `timeout` (half of it, when it waits for a lock), and a transaction that was
    left idle for as long: a process that was stopped in the middle must not hold its locks. The client waits a little
    longer, so that the server's own word comes first.
    """
    milliseconds = str(round(timeout / timedelta(milliseconds=1)))
    connection: Connection = await asyncpg.connect(
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
    return connection
