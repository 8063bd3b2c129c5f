"""Classifies Postgres' errors: it is unavailable, its connection is misplaced, a value is refused, or something else.

    async with available():     turns every error caused by the state of Postgres into DatabaseUnavailable

What can go wrong: an SQLSTATE that is in none of the lists passes unchanged, and the client gets an internal error.
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

# The SQLSTATE classes that concern the server's state: connection, resources, operator intervention, system error,
# transaction rollback (a deadlock), read-only (a failover) or aborted transactions, an object in use or a lock that is
# not available, a wrong password or database, an internal error, a missing privilege.
UNAVAILABLE = ("08", "25", "28", "40", "53", "55", "57", "58", "3D000", "XX", "42501")
# Of those: a statement that took too long, and a lock that was not available in time.
TOO_LONG = ("57014", "55P03")
# Those that concern the values: invalid, breaking a constraint, too large, or refused by a trigger.
REFUSED = ("22", "23", "54", "P0")
# The table was altered since the statement was prepared. The next attempt prepares it again.
ALTERED = "0A000"
# A table, a column or a function does not exist: a migration is missing.
UNMIGRATED = ("42P01", "42703", "42883", "42P10")
# A prepared statement is in another session than this connection's, or of another connection.
SHARED = ("26000", "42P05")
OF_ANOTHER_HOST = (62, 64)
"""OpenSSL's codes for a certificate that names neither this host (X509_V_ERR_HOSTNAME_MISMATCH) nor this address."""
BROKEN = "The connection to the database is broken."
QUOTED = re.compile(r'\s*["„“«»][^"“”«»]*["“”«»]')
"""A quotation, in the quotation marks of English and other languages."""
ADDRESS = re.compile(r"\S*:\d{1,5}\b|(?<![\w:])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}|\b\d{1,3}(?:\.\d{1,3}){3}\b")
"""An address with a port, of IPv6, or of IPv4. Postgres quotes addresses, but a pooler in between may not."""
SETTINGS = re.compile(r"(?:\b(?:host|hostaddr|port|dbname|user|password)=\S+\s*)+")
# The classes in `UNAVAILABLE` that refuse a connection: unknown user, unknown database, too many connections.
CLOSED_TO_US = ("28", "3D", "533")
# The connection is alive but useless: its server or its own state accepts nothing, or no writes. Postgres' message for
# these names neither an address nor a user.
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
    """Turns every error that means that Postgres is unavailable into DatabaseUnavailable. Other errors pass."""
    try:
        yield
    except Exception as error:
        if (why := unavailability(error)) is None:
            raise
        raise (TookTooLong if sqlstate(error) in TOO_LONG else DatabaseUnavailable)(why) from error


@asynccontextmanager
async def in_time(seconds: float) -> AsyncIterator[None]:
    """Raises TookTooLong if the block takes more than `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise TookTooLong("The database does not answer in time.") from error


def unavailability(error: Exception) -> str | None:
    """Returns why Postgres is unavailable, as a sentence without secrets; None if `error` does not mean that it is."""
    if isinstance(error, PoolTimeout):
        return "All connections to the database are in use."
    if isinstance(_cause(error), asyncpg.TargetServerAttributeNotMatched):
        return "No host of the database is what target_session_attrs asks for."
    if isinstance(error, asyncpg.InterfaceError):
        return BROKEN
    if isinstance(error, OSError):
        return f"The database {_fate(error)}."
    if isinstance(error, RuntimeError):
        # uvloop raises this for a socket that the other end has just closed.
        return BROKEN if "handler is closed" in str(error) else None
    if not isinstance(error, DBAPIError | asyncpg.PostgresError):
        return None
    state = sqlstate(error)
    if state is None and isinstance(error, SQLAlchemyError):
        # The driver failed before the server answered (a closed or broken connection, a deadline).
        return BROKEN
    if state in UNMIGRATED:
        return "The database lacks a migration: run `alembic upgrade head`."
    if state == ALTERED and "cached" in str(error):
        return "The table was altered a moment ago; try again."
    if state in SHARED:
        return "A pooler shares the sessions of Postgres."
    if state in MISPLACED:
        return f"{MISPLACED[state]}: {said(error)}."
    if (isinstance(error, DBAPIError) and error.connection_invalidated) or (state or "").startswith(UNAVAILABLE):
        does = "takes no connection" if (state or "").startswith(CLOSED_TO_US) else "does not do it"
        return f"The database {does}: {said(error)}."
    return None


def _fate(error: Exception) -> str:
    """Returns what happened to a connection, as a clause without an address. In Python a timeout is an OSError, too."""
    if isinstance(error, socket.gaierror):
        return "is not found: its name does not resolve"
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in OF_ANOTHER_HOST:
            return "has the certificate of another host"
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
    """Returns the first line of Postgres' message, without what it quotes: names of users, hosts, databases."""
    words = QUOTED.sub("", _words(error)).rstrip(".:")
    # A pooler in between does not quote these names.
    words = re.sub(r"\b(user|database): .*", r"\1", words)
    return ADDRESS.sub("…", SETTINGS.sub("…", words))


def ends_connection(error: BaseException) -> bool:
    """Whether the connection that raised this must not be used again, even if it is alive."""
    return isinstance(error, (StandbyMet, OtherHistory)) or sqlstate(error) in (*MISPLACED, *SHARED)


def constraint(error: IntegrityError) -> str:
    """Returns the name of the constraint that a statement violated."""
    return str(getattr(getattr(error.orig, "__cause__", None), "constraint_name", ""))


def misfit(error: DBAPIError) -> str | None:
    """Returns why Postgres cannot take the values of the statement, such as a letter that its encoding lacks;
    None if the error is about something else."""
    return _words(error) if (sqlstate(error) or "").startswith("22") else None


def refusal(error: DBAPIError) -> str | None:
    """Returns why Postgres refuses the values, in its own words; None if the error is about something else."""
    return _words(error) if (sqlstate(error) or "").startswith(REFUSED) else None


def sqlstate(error: BaseException) -> str | None:
    """Returns Postgres' five-character code for an error; None if Postgres did not raise it."""
    found = getattr(error, "orig", error)
    # For a statement prepared before an ALTER TABLE, SQLAlchemy's error has no code; its cause, the driver's, has one.
    state = getattr(found, "sqlstate", None) or getattr(getattr(found, "__cause__", None), "sqlstate", None)
    return state if isinstance(state, str) else None


def _words(error: BaseException) -> str:
    return str(_cause(error)).partition("\n")[0]


def _cause(error: BaseException) -> BaseException:
    """Returns the driver's error behind one of SQLAlchemy."""
    found: BaseException = getattr(error, "orig", error)
    return found.__cause__ or found
