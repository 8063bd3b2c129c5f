"""`fourways check`: names what is wrong with each environment, and exits with 1 exactly then."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from app.embedded import Endpoints
from app.schema import migrate
from tests.faults.another_redis import another_redis
from tests.fresh_database import fresh_database
from tests.least_privilege import granted_role, granted_user
from tests.terminal import terminal

WELL = (
    "settings", "redis", "eviction", "persistence", "clock of redis", "postgres", "schema", "clock of postgres",
    "connections",
)  # fmt: skip
Environment = dict[str, str]
Staging = Callable[[Endpoints], AbstractAsyncContextManager[Environment]]


async def checked(directory: Path, environment: Environment) -> tuple[int, str]:
    """Returns the exit code, and what is printed, with single blanks."""
    async with terminal(directory / "screen", "fourways", "check", **environment) as fourways:
        code = await fourways.code()
    return code, " ".join(fourways.screen.split())


@asynccontextmanager
async def well(servers: Endpoints) -> AsyncIterator[Environment]:
    async with another_redis() as redis, fresh_database(servers.database_url) as database:
        await asyncio.to_thread(migrate, database)
        yield {"REDIS_URL": redis, "DATABASE_URL": database}


@asynccontextmanager
async def least_privilege(servers: Endpoints) -> AsyncIterator[Environment]:
    async with (
        another_redis() as redis,
        granted_user(redis, "") as user,
        granted_role(servers.database_url) as role,
    ):
        yield {"REDIS_URL": user, "DATABASE_URL": role.url}


def variables(**given: str) -> Staging:
    """These variables besides healthy stores, or in place of them."""

    @asynccontextmanager
    async def staged(servers: Endpoints) -> AsyncIterator[Environment]:
        async with well(servers) as environment:
            yield environment | given

    return staged


def redis_set(**options: str) -> Staging:
    @asynccontextmanager
    async def staged(servers: Endpoints) -> AsyncIterator[Environment]:
        async with well(servers) as environment, Redis.from_url(environment["REDIS_URL"]) as redis:
            for name, value in options.items():
                await redis.config_set(name.replace("_", "-"), value)
            yield environment
            await redis.config_set("requirepass", "")

    return staged


def redis_database(number: int) -> Staging:
    @asynccontextmanager
    async def staged(servers: Endpoints) -> AsyncIterator[Environment]:
        async with well(servers) as environment:
            yield environment | {"REDIS_URL": environment["REDIS_URL"].replace("?db=0", f"?db={number}")}

    return staged


def in_sql(*statements: str, after: str = "SELECT 1") -> Staging:
    @asynccontextmanager
    async def staged(servers: Endpoints) -> AsyncIterator[Environment]:
        async with well(servers) as environment:
            sql = await asyncpg.connect(environment["DATABASE_URL"])
            for statement in statements:
                await sql.execute(statement)
            yield environment
            await sql.execute(after)
            await sql.close()

    return staged


def with_option(option: str) -> Staging:
    """Healthy stores, with this setting in DATABASE_URL."""

    @asynccontextmanager
    async def staged(servers: Endpoints) -> AsyncIterator[Environment]:
        async with well(servers) as environment:
            url = environment["DATABASE_URL"]
            yield environment | {"DATABASE_URL": f"{url}{'&' if '?' in url else '?'}options=-c%20{option}"}

    return staged


@pytest.mark.parametrize("staged", [well, least_privilege])
async def test_an_environment_in_which_the_service_works_is_all_right(
    servers: Endpoints, tmp_path: Path, staged: Staging
) -> None:
    async with staged(servers) as environment:
        code, screen = await checked(tmp_path, environment)
    assert (code, screen) == (0, "what found, and what to do " + " ".join(f"{part} ok" for part in WELL))


@pytest.mark.parametrize(
    ("staged", "says"),
    [
        (variables(FOURWAYS_USER_TTL="5"), "has no effect: perhaps FOURWAYS_USERS_TTL is meant"),
        (variables(FOURWAYS_USERS_TTL="soon"), "FOURWAYS_USERS_TTL is 'soon': it must be a number of seconds"),
        (variables(REDIS_URL="redis://localhost?protocol=3"), "has the parameter protocol, which a URL may not set"),
        (variables(DATABASE_URL="postgresql://localhost/x?sslmode=bogus"), "sslmode"),
        (variables(REDIS_URL="redis://127.0.0.1:1"), "it refuses connections: see whether it runs"),
        (variables(DATABASE_URL="postgresql://a@127.0.0.1:1/x"), "The database refuses connections: see whether it"),
        (with_option("work_mem%3Dmuch"), "invalid value for parameter: see the options in DATABASE_URL"),
        (with_option("work_memory%3D8MB"), "unrecognized configuration parameter: see the options in DATABASE_URL"),
        (with_option("role%3Dnobody"), "role does not exist: see the options in DATABASE_URL"),
        (redis_database(99), "DB index is out of range: name another database in REDIS_URL"),
        (redis_set(requirepass="hunter2"), "put its password into REDIS_URL"),
        (redis_set(maxmemory_policy="volatile-lru"), "eviction maxmemory-policy is volatile-lru"),
        (redis_set(appendonly="no"), "persistence appendonly is off"),
        (in_sql("DELETE FROM alembic_version"), "schema a migration is missing: run `alembic upgrade head`"),
        (in_sql("DROP TABLE users CASCADE", "DROP TABLE alembic_version"), "schema a migration is missing"),
        (variables(FOURWAYS_DATABASE_CONNECTIONS="1000"), "connections a process opens up to 1005 connections"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named_with_what_to_do(
    servers: Endpoints, tmp_path: Path, staged: Staging, says: str
) -> None:
    async with staged(servers) as environment:
        code, screen = await checked(tmp_path, environment)
    assert code == 1
    assert says in screen
    assert "Traceback" not in screen
    assert "hunter2" not in screen


async def test_without_stores_it_says_whether_the_service_can_start_its_own(tmp_path: Path) -> None:
    code, screen = await checked(tmp_path, {"FOURWAYS_DIRECTORY": str(tmp_path / "new")})
    assert (code, screen) == (0, "what found, and what to do settings ok directory ok")
    (tmp_path / "file").touch()
    code, screen = await checked(tmp_path, {"FOURWAYS_DIRECTORY": str(tmp_path / "file" / "new")})
    assert code == 1
    assert "cannot be written to: set FOURWAYS_DIRECTORY" in screen


def test_a_directory_inside_of_one_that_may_not_be_searched_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    program = [sys.executable, "-m", "app", "check"]
    if os.geteuid() == 0:  # It may search every directory, unless that right is taken from it.
        os.chown(closed, 65_534, 65_534)
        program = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *program]
    closed.chmod(0)
    stores = dict.fromkeys(("REDIS_URL", "DATABASE_URL"), "")
    variables = os.environ | stores | {"FOURWAYS_DIRECTORY": str(closed / "a" / "b")}
    done = subprocess.run(program, env=variables, capture_output=True, text=True, check=False)
    closed.chmod(0o700)
    assert (done.returncode, done.stderr) == (1, "")
    assert "cannot be written to: set FOURWAYS_DIRECTORY" in " ".join(done.stdout.split())
