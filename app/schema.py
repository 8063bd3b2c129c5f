"""The schema of the database: which one this code needs, which one is there, and how to get from one to the other."""

from enum import StrEnum
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from alembic.util import CommandError

from app.database import Database

ALEMBIC = Path(__file__).parent.parent / "alembic.ini"


class Schema(StrEnum):
    """How the schema of the database stands to this code."""

    CURRENT = "current"
    OLDER = "a migration is missing: run `alembic upgrade head`"  # This code cannot work with it.
    NEWER = "a later version of the application has migrated it"


def migrate(url: str) -> None:
    """Brings the database at `url` up to date; one that a later version has migrated is left as it is.

    Runs an event loop of its own: call it from a thread, or without one.
    """
    config = Config(str(ALEMBIC))
    config.attributes.update(database_url=url, configure_logging=False)
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        # Alembic does not know the revision that it found: it is of the future. What to do about it is `schema`'s word.
        if not isinstance(error.__cause__, ResolutionError):
            raise


async def schema(database: Database) -> Schema:
    """Compares the database with this code. Raises DatabaseUnavailable."""
    async with database.reading("health") as connection:
        revisions = await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_heads())
    known, heads = _revisions()
    if not set(revisions) <= known:
        return Schema.NEWER
    return Schema.CURRENT if set(revisions) == heads else Schema.OLDER


async def server_version(database: Database) -> int:
    """The major version of Postgres. Raises DatabaseUnavailable."""
    async with database.reading("health") as connection:
        return int((await connection.exec_driver_sql("SHOW server_version_num")).scalar_one()) // 10_000


@cache
def _revisions() -> tuple[frozenset[str], frozenset[str]]:
    """All revisions that this code has, and the newest. Read once: a balancer asks for readiness all the time."""
    scripts = ScriptDirectory.from_config(Config(str(ALEMBIC)))
    return frozenset(script.revision for script in scripts.walk_revisions()), frozenset(scripts.get_heads())
