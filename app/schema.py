"""The schema of the database: which one this code needs, which one is there, and how to get from one to the other."""

from enum import StrEnum
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from app.database import Database

ALEMBIC = Path(__file__).parent.parent / "alembic.ini"


class Schema(StrEnum):
    """How the schema of the database stands to this code."""

    CURRENT = "current"
    OLDER = "older"  # A migration is missing: this code cannot work with it.
    NEWER = "newer"  # A later version of the application has migrated it.


def migrate(url: str) -> None:
    """Brings the database at `url` up to date. Runs an event loop of its own: call it from a thread, or without one."""
    config = Config(str(ALEMBIC))
    config.attributes.update(database_url=url, configure_logging=False)
    command.upgrade(config, "head")


async def schema(database: Database) -> Schema:
    """Compares the database with this code. Raises DatabaseUnavailable."""
    async with database.reading("health") as connection:
        revisions = await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_heads())
    scripts = ScriptDirectory.from_config(Config(str(ALEMBIC)))
    known = {script.revision for script in scripts.walk_revisions()}
    if not set(revisions) <= known:
        return Schema.NEWER
    return Schema.CURRENT if set(revisions) == set(scripts.get_heads()) else Schema.OLDER
