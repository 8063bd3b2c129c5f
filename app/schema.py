"""The schema of the database: which one this code needs, which one exists, and how to migrate.

Alembic is imported only to migrate: importing it takes a seventh of the start of a process.
"""

import ast
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

from sqlalchemy import Text, column, text

from app.database import Database
from app.look import Look

SERVER = Look(
    text(
        "SELECT current_setting('server_version_num') AS version, "
        "current_setting('transaction_read_only') AS read_only, "
        "current_setting('server_encoding') AS encoding"
    ).columns(*(column(name, Text) for name in ("version", "read_only", "encoding")))
)
HAS_REVISIONS = text("SELECT to_regclass('alembic_version') IS NOT NULL")
REVISIONS = text("SELECT version_num FROM alembic_version")
LOCK = 0x666F757277617973
"""The number of the advisory lock of what migrates and grants, one process at a time: "fourways" in ASCII."""
ALEMBIC = Path(__file__).parent.parent / "alembic.ini"


class MigrationError(Exception):
    """The database cannot be migrated as it is. The message says what to change first."""


class Schema(StrEnum):
    """How the schema of the database compares with this code."""

    CURRENT = "current"
    OLDER = "a migration is missing: run `alembic upgrade head`"  # This code cannot work with it.
    NEWER = "a later version of the application has migrated it"


def migrate(url: str) -> None:
    """Migrates the database at `url` to the newest schema. Leaves one that a later version has migrated unchanged.

    Runs its own event loop: call it from a thread, or where no loop is running. Raises MigrationError, and then nothing
    has changed.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.script.revision import ResolutionError
    from alembic.util import CommandError

    config = Config(str(ALEMBIC))
    config.attributes.update(database_url=url, configure_logging=False)
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        # Alembic does not know the revision that it found: a later version made it. `schema` reports that.
        if not isinstance(error.__cause__, ResolutionError):
            raise MigrationError(str(error)) from error


async def schema(database: Database) -> Schema:
    """Compares the database with this code. Raises DatabaseUnavailable."""
    async with database.reading("health") as connection:
        there = (await connection.execute(HAS_REVISIONS)).scalar_one()
        revisions = set((await connection.execute(REVISIONS)).scalars()) if there else set()
    known, heads = _revisions()
    if not revisions <= known:
        return Schema.NEWER
    return Schema.CURRENT if revisions == heads else Schema.OLDER


@dataclass(frozen=True, slots=True)
class Server:
    """The Postgres that a writer gets: its major version, whether it is read-only, and the encoding of the database."""

    version: int
    read_only: bool
    encoding: str


async def server(database: Database) -> Server:
    """Queries the server on a writer's connection; a standby would answer `schema`, too. Raises DatabaseUnavailable."""
    async with database.reading("health", as_writer=True) as connection:
        (row,) = await database.look_on(connection, SERVER)
    return Server(int(row["version"]) // 10_000, row["read_only"] == "on", row["encoding"])


@cache
def _revisions() -> tuple[frozenset[str], frozenset[str]]:
    """Returns all revisions of this code, and the newest. Read once: load balancers ask for readiness all the time."""
    before: dict[str, str | None] = {}
    for file in ALEMBIC.parent.glob("migrations/versions/*.py"):
        assigned = (line for line in ast.parse(file.read_bytes()).body if isinstance(line, ast.Assign))
        said = {line.targets[0].id: line.value for line in assigned if isinstance(line.targets[0], ast.Name)}
        before[ast.literal_eval(said["revision"])] = ast.literal_eval(said["down_revision"])
    return frozenset(before), frozenset(before) - frozenset(before.values())
