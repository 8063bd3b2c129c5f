"""Runs the migrations, one process at a time: `DATABASE_URL=… alembic upgrade head`."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from logging.config import fileConfig

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

# Each of these declares its tables on the metadata, which makes it complete.
import app.coherence.models
import app.inventory.models
import app.page_views.models
import app.products.models
import app.users.models  # noqa: F401  # imported for its tables, as the four above
from app.availability import available, said, sqlstate
from app.connection import connect
from app.database import metadata
from app.database_url import RefusedUrl
from app.errors import DatabaseUnavailable
from app.schema import LOCK, MigrationError
from app.settings import SettingsError, read_database_url

PATIENCE = timedelta(minutes=5)
"""How long one statement may take, including the wait for another process's migration."""
TO_DO = {
    "42501": "name the role that owns the tables in DATABASE_URL",
    "3F000": "put its search_path right in DATABASE_URL, as in options=-c%20search_path%3Dpublic",
}
"""By Postgres' code, what to do where this role may not migrate, or has no schema to create tables in."""


def is_ours(name: str | None, kind: str, parents: object) -> bool:
    """Returns whether the migrations manage a table. The ledger's hourly partitions come and go without them."""
    return not (kind == "table" and name is not None and name.startswith("applied_"))


def run(connection: Connection) -> None:
    """Runs the requested migrations in one transaction."""
    context.configure(
        connection=connection, target_metadata=metadata, compare_server_default=True, include_name=is_ours
    )
    with context.begin_transaction():
        # Alembic takes no lock itself. Two replicas that start together would both find an empty database and create
        # the tables, and one would fail. With the lock first, the second one reads the version table after the first
        # has committed, and finds nothing to do.
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        context.run_migrations()


async def main() -> None:
    """Connects to the configured database and runs the migrations."""
    url = context.config.attributes.get("database_url") or read_database_url()
    if url is None:
        raise SettingsError("DATABASE_URL is missing: alembic needs to know which database to migrate.")
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: connect(url, PATIENCE), poolclass=NullPool
    )
    async with AsyncExitStack() as stack:
        async with available():
            connection = await stack.enter_async_context(engine.connect())
        try:
            await connection.run_sync(run)
        except DBAPIError as error:
            if (to_do := TO_DO.get(sqlstate(error) or "")) is None:
                raise
            raise MigrationError(f"Nothing was migrated: {said(error)}: {to_do}.") from error
    await engine.dispose()


if context.is_offline_mode():
    raise SystemExit("The migrations run against a database; there is no SQL script of them.")
if context.config.config_file_name is not None and context.config.attributes.get("configure_logging", True):
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)
try:
    asyncio.run(main())
except (SettingsError, RefusedUrl, DatabaseUnavailable, MigrationError) as error:
    # Alembic's command line prints this one without a traceback.
    raise CommandError(str(error)) from error
