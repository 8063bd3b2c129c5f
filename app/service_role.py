"""The role of Postgres as which the service runs.

    prepare_role    it cannot log in -> CREATE ROLE, or ALTER ROLE with the password of its URL
                    then the GRANTs (`grants.py`), and a look whether it has them

A role that can log in keeps its password, so somebody else may make it: then the owner needs no right to make roles.

What can go wrong: `DatabaseUnavailable`, in the words of Postgres: the owner may not make roles, a migration is
missing, or the role has its password and is still refused. `SettingsError`: the two URLs lead to two databases.
"""

from datetime import timedelta

import asyncpg

from app.availability import available
from app.connection import connect
from app.database import open_database
from app.database_url import DatabaseUrl
from app.grants import literal, postgres_statements, quoted
from app.privileges import missing_in_postgres
from app.schema import LOCK, Schema, schema
from app.scram import verifier
from app.settings import SettingsError

IS_MORE = """
SELECT rolsuper OR rolname = current_user OR EXISTS (
  SELECT FROM pg_class WHERE relowner = pg_roles.oid AND relnamespace::regnamespace::text <> 'pg_catalog'
) FROM pg_roles WHERE rolname = $1
"""
"""Whether a role is more than the service needs. Its password is somebody else's, and must not be replaced."""
PATIENCE = timedelta(minutes=5)
"""How long one statement may take, including the wait for another process's migration."""


async def prepare_role(owner_url: str, url: str) -> str:
    """Lets the role of `url` log in, and permits it what the service needs, as the owner of the tables. Returns its
    name. Raises DatabaseUnavailable and SettingsError."""
    arguments = DatabaseUrl.read(url).attempts()[0]
    role, password = arguments["user"], arguments["password"]
    async with available():
        can_log_in = await _can_log_in(url)
        owner = await connect(owner_url, PATIENCE)
        try:
            async with owner.transaction():
                # Without the lock:
                #   A adds a table, and has not committed       B grants what its version needs: there is no such table
                #   A grants                                    B grants, too: "tuple concurrently updated"
                await owner.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
                if await owner.fetchval(IS_MORE, role):
                    raise SettingsError(
                        f"DATABASE_URL names {role!r}, a superuser or the owner of the tables: name a role of its own "
                        "for the service."
                    )
                if not can_log_in:
                    exists = await owner.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", role)
                    await owner.execute(_login(role, password, "ALTER" if exists else "CREATE"))
                await owner.execute(postgres_statements(role))
        finally:
            await owner.close()
    await _look(url)
    return str(role)


def _login(role: str, password: str | None, verb: str) -> str:
    statement = f"{verb} ROLE {quoted(role)} LOGIN"
    if password is None:  # It has a certificate, or Postgres trusts it.
        return statement
    # Other letters are left to the server, which normalises them.
    return f"{statement} PASSWORD {literal(verifier(password) if password.isascii() else password)}"


async def _can_log_in(url: str) -> bool:
    """Returns whether Postgres knows the role and takes its password. It may still keep it out of the database."""
    try:
        connection = await connect(url, PATIENCE)
    except asyncpg.InvalidAuthorizationSpecificationError:
        return False
    except asyncpg.InsufficientPrivilegeError:
        return True
    await connection.close()
    return True


async def _look(url: str) -> None:
    """Finds what is wrong after all, as the role itself."""
    async with open_database(url, connections=1, timeout=PATIENCE, counted=lambda resource: None) as database:
        found = await schema(database)
        wrong = found if found is Schema.OLDER else await missing_in_postgres(database)
    if wrong is not None:
        raise SettingsError(f"DATABASE_URL leads to another database than OWNER_URL, or to another schema: {wrong}.")
