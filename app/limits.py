"""Limits on every wait in Postgres, and the other settings of a session, in three forms.

    for_session        a statement that sets them until the session ends, if it belongs to this connection alone
    for_transaction    a statement that sets them until the transaction ends: it follows BEGIN in the same message
    messages           the same as bytes, to be sent before a statement that is a transaction of its own

What can go wrong: Postgres refuses a setting that the operator has written into the URL.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

ISOLATION = "read committed"
BEGUN = {f"default_transaction_{name}": f"transaction_{name}" for name in ("read_only", "deferrable")}
"""The settings of a transaction that has begun, by those of the transactions to come."""
SHARED = "SELECT 0"
"""What Postgres answers to `for_session` if the session is not the connection's own."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Settings by name."""

    settings: Mapping[str, str]
    for_transaction: str
    messages: bytes

    @classmethod
    def of(cls, settings: Mapping[str, str], timeout: timedelta) -> Self:
        """Returns limits beside these settings.

        Postgres itself ends a statement after `timeout` (after half of it if it waits for a lock), and a transaction
        that was idle for as long: a process that was stopped midway must not keep its locks.
        """
        milliseconds = round(timeout / timedelta(milliseconds=1))
        limits = {
            **settings,
            "statement_timeout": str(milliseconds),
            "idle_in_transaction_session_timeout": str(milliseconds),
            "lock_timeout": str(max(1, milliseconds // 2)),
        }
        # A default counts from the next transaction on. A pooler may not forward the time zone.
        local = {BEGUN.get(name, name): text for name, text in limits.items()} | {"timezone": "UTC"}
        # asyncpg's question about a type would be compiled for longer than it runs.
        begun = {**local, "jit": "off"}
        # Postgres refuses the isolation if the transaction has begun with another one.
        alone = {"transaction_isolation": ISOLATION, **local}
        return cls(limits, _set_locally(begun), _messages(_set_locally(alone)))

    def for_session(self, pid: int) -> str:
        """Returns a statement that does nothing, and answers `SHARED`, unless the process `pid` executes it."""
        # Overrides the database's default: the lock of a SKU and its row must be read in two snapshots.
        settings = {**self.settings, "default_transaction_isolation": ISOLATION}
        return f"SELECT {', '.join(_set(settings, local=False))} WHERE pg_backend_pid() = {pid}"


def _set_locally(settings: Mapping[str, str]) -> str:
    """Returns a statement without rows: nobody expects any."""
    return f"SELECT WHERE {' || '.join(_set(settings, local=True))} IS NULL"


def _set(settings: Mapping[str, str], *, local: bool) -> list[str]:
    return [f"set_config({_quoted(name)}, {_quoted(text)}, {local})" for name, text in settings.items()]


def _quoted(text: str) -> str:
    """Returns an SQL literal that means the same whatever standard_conforming_strings is."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def _messages(statement: str) -> bytes:
    """Returns Parse, Bind and Execute, without names and parameters."""
    bodies = (b"P", b"\0%b\0\0\0" % statement.encode()), (b"B", bytes(8)), (b"E", bytes(5))
    return b"".join(kind + struct.pack("!i", 4 + len(body)) + body for kind, body in bodies)
