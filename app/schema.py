"""The schema of the database: which one this code needs, which one is there, and how to get from one to the other.

Alembic is imported by who migrates, and by nobody else: that is a seventh of what the start of a process takes.
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
        "SELECT current_setting('server_version_num') AS version, current_setting('transaction_read_only') AS read_only"
    ).columns(column("version", Text), column("read_only", Text))
)
HAS_REVISIONS = text("SELECT to_regclass('alembic_version') IS NOT NULL")
REVISIONS = text("SELECT version_num FROM alembic_version")
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
    from alembic import command
    from alembic.config import Config
    from alembic.script.revision import ResolutionError
    from alembic.util import CommandError

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
        there = (await connection.execute(HAS_REVISIONS)).scalar_one()
        revisions = set((await connection.execute(REVISIONS)).scalars()) if there else set()
    known, heads = _revisions()
    if not revisions <= known:
        return Schema.NEWER
    return Schema.CURRENT if revisions == heads else Schema.OLDER


@dataclass(frozen=True, slots=True)
class Server:
    """The Postgres that a writer gets: its major version, and whether it takes no writes."""

    version: int
    read_only: bool


async def server(database: Database) -> Server:
    """Asks as a writer does: of the schema, a standby answers, too. Raises DatabaseUnavailable."""
    async with database.reading("health", as_writer=True) as connection:
        (row,) = await database.look_on(connection, SERVER)
    return Server(int(row["version"]) // 10_000, row["read_only"] == "on")


@cache
def _revisions() -> tuple[frozenset[str], frozenset[str]]:
    """All revisions that this code has, and the newest. Read once: a balancer asks for readiness all the time."""
    before: dict[str, str | None] = {}
    for file in ALEMBIC.parent.glob("migrations/versions/*.py"):
        assigned = (line for line in ast.parse(file.read_bytes()).body if isinstance(line, ast.Assign))
        said = {line.targets[0].id: line.value for line in assigned if isinstance(line.targets[0], ast.Name)}
        before[ast.literal_eval(said["revision"])] = ast.literal_eval(said["down_revision"])
    return frozenset(before), frozenset(before) - frozenset(before.values())
