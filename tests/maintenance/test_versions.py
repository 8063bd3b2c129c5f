"""Two real versions of the service run beside each other on one pair of stores while one replaces the other."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from app.embedded import Endpoints
from app.schema import Schema, migrate
from tests.faults.another_redis import another_redis
from tests.fresh_database import fresh_database
from tests.maintenance.fleet import Fleet
from tests.maintenance.trickle import Trickle
from tests.service import REPOSITORY

NEWEST = max(path.name for path in (REPOSITORY / "migrations" / "versions").glob("*.py"))
"""The revision that the version before lacks."""
PATIENT = ("FOURWAYS_DATABASE_TIMEOUT=10", "FOURWAYS_REDIS_TIMEOUT=5")
ROUNDS = 8
"""How often every instance is asked for everything before the next one is replaced."""


def git(*arguments: str) -> bytes:
    """Returns what git says of this repository. Skips the test where it knows nothing."""
    program = shutil.which("git")
    if program is None or not (REPOSITORY / ".git").exists():
        pytest.skip("There is no git here, or no repository.")
    # Whoever owns the files, it is this repository.
    command = [program, "-c", f"safe.directory={REPOSITORY}", "-C", str(REPOSITORY), *arguments]
    return subprocess.run(command, capture_output=True, check=True).stdout


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """The files of the last version without the newest revision of the schema."""
    added = git("log", "--diff-filter=A", "--format=%H", "--", f"migrations/versions/{NEWEST}").decode().split()
    if not added or git("rev-parse", "--is-shallow-repository") != b"false\n":
        pytest.skip(f"The history does not say which version was the last one without {NEWEST}.")
    archive = git("archive", "--format=tar", f"{added[-1]}^", "app", "migrations", "alembic.ini")
    subprocess.run(["tar", "-x", "-C", str(tmp_path)], input=archive, check=True)
    return tmp_path


def python(directory: Path) -> list[str]:
    """The command for a Python that finds the code of `directory` and no other, with the patience that a busy machine
    needs."""
    return ["env", f"--chdir={directory}", f"PYTHONPATH={directory}", *PATIENT, sys.executable]


@pytest.mark.timeout(300)
async def test_nothing_is_stale_or_lost_or_refused_while_one_version_replaces_the_other(
    servers: Endpoints, before: Path
) -> None:
    """O and P of the version before serve
    the database is migrated                    O and P go on, and read and write what N will
    O is taken out, and stopped                 N takes its place: its values are in Redis beside those of P
    P too                                       what it had accepted is in the total that N knows

    Each round of requests goes to the next instance, and must see what the one before has written.
    """
    async with another_redis() as redis_url, fresh_database(servers.database_url) as database_url:
        await asyncio.to_thread(
            subprocess.run, [*python(before), "-m", "alembic", "upgrade", "head"],
            env=os.environ | {"DATABASE_URL": database_url}, check=True, capture_output=True,
        )  # fmt: skip
        stores = Endpoints(redis_url, database_url)
        async with Fleet.of(2, stores, python(before)) as fleet:
            older = tuple(fleet.members)
            async with Trickle.to(fleet.members) as trickle:
                await trickle.goes_around()
                await asyncio.to_thread(migrate, database_url)
                for member in older:
                    async with member.service.client() as client:
                        parts = (await client.get("/health/ready")).json()["parts"]
                    assert parts["schema"] == Schema.NEWER, "It is the version before."
                await trickle.goes_around()
                for member in older:
                    await trickle.leave(member)
                    await fleet.end(member)
                    trickle.join(await fleet.start(stores, python(REPOSITORY)))
                    for _ in range(ROUNDS):
                        await trickle.goes_around()
            await fleet.members[0].drained()
        sql = await asyncpg.connect(database_url)
        assert await sql.fetchval("SELECT sum(views) FROM page_views") == trickle.viewed
        assert await sql.fetchval("SELECT count(*) FROM dead_letters") == 0
        await sql.close()
