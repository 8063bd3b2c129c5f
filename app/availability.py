"""What Postgres' errors mean: that it is away, that its answer is no good, that a value is refused, or something else.

    async with available():     whatever goes wrong because of Postgres' state is DatabaseUnavailable outside

What can go wrong: an SQLSTATE that stands in none of the lists passes as it is, and a client is told of a defect.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.errors import DatabaseUnavailable, OtherHistory, StandbyMet

# The classes of SQLSTATE that speak of the server's state: connection, resources, operator intervention, system error,
# transaction roll-back (a deadlock), read-only (a failover) or aborted transactions, an object in use or a lock that is
# not to be had, a password or a database that it does not know, an error of its own.
UNAVAILABLE = ("08", "25", "28", "40", "53", "55", "57", "58", "3D000", "XX")
# Those that speak of the values: they cannot be, break a constraint, are too large, or a trigger does not like them.
REFUSED = ("22", "23", "54", "P0")
# The table was altered since the statement was prepared: the next try prepares it anew.
ALTERED = "0A000"
# A table, a column or a function is not there: a migration is missing.
UNMIGRATED = ("42P01", "42703", "42883", "42P10")
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
    except PoolTimeout as error:
        raise DatabaseUnavailable("All connections to the database are in use.") from error
    except (OSError, TimeoutError, asyncpg.InterfaceError) as error:
        raise DatabaseUnavailable("The database does not answer.") from error
    except RuntimeError as error:
        # What uvloop says of a socket that the other end has closed a moment ago.
        if "handler is closed" not in str(error):
            raise
        raise DatabaseUnavailable("The connection to the database is broken.") from error
    except (DBAPIError, asyncpg.PostgresError) as error:
        state = sqlstate(error)
        if state in UNMIGRATED:
            raise DatabaseUnavailable("The database lacks a migration: run `alembic upgrade head`.") from error
        if state == ALTERED and "cached" in str(error):
            raise DatabaseUnavailable("The table was altered a moment ago; try again.") from error
        if state in MISPLACED:
            raise DatabaseUnavailable(f"{MISPLACED[state]}: {_words(error)}.") from error
        if (isinstance(error, DBAPIError) and error.connection_invalidated) or (state or "").startswith(UNAVAILABLE):
            raise DatabaseUnavailable("The database does not answer as it should.") from error
        if isinstance(error, SQLAlchemyError) and state is None:
            # No SQLSTATE: the driver gave up before the server had a say (a closed or broken connection, a deadline).
            raise DatabaseUnavailable("The connection to the database is broken.") from error
        raise


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
