"""What Postgres' errors mean: that it is away, that its answer is no good, that a value is refused, or something else.

    async with available():     whatever goes wrong because of Postgres' state is DatabaseUnavailable outside

What can go wrong: an SQLSTATE that stands in none of the lists passes as it is, and a client is told of a defect.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.errors import DatabaseUnavailable, OtherHistory, StandbyMet, TookTooLong

# The classes of SQLSTATE that speak of the server's state: connection, resources, operator intervention, system error,
# transaction roll-back (a deadlock), read-only (a failover) or aborted transactions, an object in use or a lock that is
# not to be had, a password or a database that it does not know, an error of its own, a privilege that is missing.
UNAVAILABLE = ("08", "25", "28", "40", "53", "55", "57", "58", "3D000", "XX", "42501")
# Of those, a statement that took too long, and a lock that was not to be had in time.
TOO_LONG = ("57014", "55P03")
# Those that speak of the values: they cannot be, break a constraint, are too large, or a trigger does not like them.
REFUSED = ("22", "23", "54", "P0")
# The table was altered since the statement was prepared: the next try prepares it anew.
ALTERED = "0A000"
# A table, a column or a function is not there: a migration is missing.
UNMIGRATED = ("42P01", "42703", "42883", "42P10")
BROKEN = "The connection to the database is broken."
QUOTED = re.compile(r'\s*["„“«»][^"“”«»]*["“”«»]')
"""As English and other languages quote."""
ADDRESS = re.compile(r"\S*:\d{1,5}\b|(?<![\w:])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}|\b\d{1,3}(?:\.\d{1,3}){3}\b")
"""With a port; IPv6; IPv4. Postgres quotes them, and what stands in between may not."""
SETTINGS = re.compile(r"(?:\b(?:host|hostaddr|port|dbname|user|password)=\S+\s*)+")
# Of those, the ones that say it at the door: who this is, to which database, and how many there are already.
CLOSED_TO_US = ("28", "3D", "533")
# The connection lives, and is of no use: it leads to a server, or is in a state, that takes nothing or no writes. What
# Postgres says of it names neither an address nor a user.
MISPLACED = {
    "25006": "Postgres is read-only",
    "25P02": "Postgres has given the transaction up",
    "55000": "Postgres is not in the state for that",  # "recovery is in progress"
    "57P01": "Postgres ends the connection",
    "57P02": "Postgres ends the connection",
    "57P03": "Postgres takes no connections",
}


@asynccontextmanager
async def available() -> AsyncIterator[None]:
    """Turns every way in which Postgres can be away into DatabaseUnavailable; other errors pass."""
    try:
        yield
    except Exception as error:
        if (why := unavailability(error)) is None:
            raise
        raise (TookTooLong if sqlstate(error) in TOO_LONG else DatabaseUnavailable)(why) from error


@asynccontextmanager
async def in_time(seconds: float) -> AsyncIterator[None]:
    """Raises TookTooLong after so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise TookTooLong("The database does not answer in time.") from error


def unavailability(error: Exception) -> str | None:
    """In which way Postgres is away, as a sentence without secrets; None when `error` does not say that it is."""
    if isinstance(error, PoolTimeout):
        return "All connections to the database are in use."
    if isinstance(error, asyncpg.InterfaceError):
        return BROKEN
    if isinstance(error, OSError):
        return f"The database {_fate(error)}."
    if isinstance(error, RuntimeError):
        # What uvloop says of a socket that the other end has closed a moment ago.
        return BROKEN if "handler is closed" in str(error) else None
    if not isinstance(error, DBAPIError | asyncpg.PostgresError):
        return None
    state = sqlstate(error)
    if state is None and isinstance(error, SQLAlchemyError):
        # The driver gave up before the server had a say (a closed or broken connection, a deadline).
        return BROKEN
    if state in UNMIGRATED:
        return "The database lacks a migration: run `alembic upgrade head`."
    if state == ALTERED and "cached" in str(error):
        return "The table was altered a moment ago; try again."
    if state in MISPLACED:
        return f"{MISPLACED[state]}: {said(error)}."
    if (isinstance(error, DBAPIError) and error.connection_invalidated) or (state or "").startswith(UNAVAILABLE):
        does = "takes no connection" if (state or "").startswith(CLOSED_TO_US) else "does not do it"
        return f"The database {does}: {said(error)}."
    return None


def _fate(error: Exception) -> str:
    """What became of a connection: a clause without an address. In Python, a deadline is an OSError, too."""
    if isinstance(error, socket.gaierror):
        return "is not found: its name does not resolve"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "has a certificate that is not trusted"
    if isinstance(error, ssl.SSLError):
        return "does not speak TLS as this process does"
    if isinstance(error, ConnectionRefusedError | FileNotFoundError) or "[Errno 111]" in str(error):
        return "refuses connections"
    if isinstance(error, PermissionError):
        return "is behind a socket that this process may not use"
    if isinstance(error, TimeoutError):
        return "does not answer in time"
    if isinstance(error, ConnectionError):
        return "has closed the connection"
    return "cannot be reached"


def said(error: BaseException) -> str:
    """What Postgres said: its first line, without what it quotes: names of users, hosts, databases."""
    words = QUOTED.sub("", _words(error)).rstrip(".")
    # A pooler in between does not quote them.
    words = re.sub(r"\b(user|database): .*", r"\1", words)
    return ADDRESS.sub("…", SETTINGS.sub("…", words))


def ends_connection(error: BaseException) -> bool:
    """Whether the connection on which this was raised must not be used again, although it may live."""
    return isinstance(error, (StandbyMet, OtherHistory)) or sqlstate(error) in MISPLACED


def constraint(error: IntegrityError) -> str:
    """The name of the constraint that a statement broke."""
    return str(getattr(getattr(error.orig, "__cause__", None), "constraint_name", ""))


def refusal(error: DBAPIError) -> str | None:
    """Why Postgres refuses the values that it was given, in its own words; None when it is about something else."""
    return _words(error) if (sqlstate(error) or "").startswith(REFUSED) else None


def sqlstate(error: BaseException) -> str | None:
    """The five characters by which Postgres names an error, None when it was not Postgres that raised it."""
    found = getattr(error, "orig", error)
    # SQLAlchemy's own error for a statement of before an ALTER TABLE says nothing of it: the driver's, its cause, does.
    state = getattr(found, "sqlstate", None) or getattr(getattr(found, "__cause__", None), "sqlstate", None)
    return state if isinstance(state, str) else None


def _words(error: BaseException) -> str:
    found = getattr(error, "orig", error)
    return str(getattr(found, "__cause__", None) or found).partition("\n")[0]
