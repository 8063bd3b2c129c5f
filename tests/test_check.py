"""`fourways check`: names what is wrong with each environment, and exits with 1 exactly then."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from redis.asyncio import Redis

from app.database import open_database
from app.embedded import Endpoints
from app.room import lack_in_postgres
from app.settings import Settings
from tests.faults.another_redis import another_redis
from tests.faults.standby import Standby
from tests.in_process import application
from tests.least_privilege import as_role, granted_role, granted_user, quoted
from tests.migrated_database import migrated_database
from tests.terminal import terminal

WELL = (
    "settings", "redis", "eviction", "persistence", "clock of redis", "connections to redis", "postgres", "schema",
    "clock of postgres", "connections to postgres", "owner",
)  # fmt: skip
Environment = dict[str, str]
Staging = Callable[[Endpoints], AbstractAsyncContextManager[Environment]]


async def checked(directory: Path, environment: Environment, *options: str) -> tuple[int, str]:
    """Returns the exit code, and what is printed, with single blanks."""
    async with terminal(directory / "screen", "fourways", "check", *options, **environment) as fourways:
        code = await fourways.code()
    return code, " ".join(fourways.screen.split())


@asynccontextmanager
async def well(servers: Endpoints) -> AsyncIterator[Environment]:
    async with another_redis() as redis, migrated_database(servers.database_url) as database:
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


def used_by(**owner: str) -> Staging:
    """Healthy stores. Redis was last used by another service, whose record is like the one of this, but for these."""

    @asynccontextmanager
    async def staged(servers: Endpoints) -> AsyncIterator[Environment]:
        async with well(servers) as environment, Redis.from_url(environment["REDIS_URL"]) as redis:
            settings = Settings(
                _env_file=None, redis_url=environment["REDIS_URL"], database_url=environment["DATABASE_URL"]
            )
            async with application(settings):
                pass
            for field, value in owner.items():
                await redis.hset("epoch", field, value)
            yield environment

    return staged


@pytest.mark.parametrize("staged", [well, least_privilege, used_by()])
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
        (redis_set(maxmemory_policy="volatile-lru"), "a repeated write may be added twice; set it to noeviction"),
        (redis_set(appendonly="no"), "appendonly is off: when Redis restarts, accepted writes are lost; set it to yes"),
        (in_sql("DELETE FROM alembic_version"), "schema a migration is missing: run `alembic upgrade head`"),
        (in_sql("DROP TABLE users CASCADE", "DROP TABLE alembic_version"), "schema a migration is missing"),
        (with_option("search_path%3Dnowhere"), "its search_path is nowhere, and the tables are in public: "),
        (variables(FOURWAYS_DATABASE_CONNECTIONS="1000"), "postgres a process opens up to 1005 connections to"),
        (redis_set(maxclients="17"), "a process opens up to 18 connections to Redis, which allows 17, and"),
        (used_by(deployment="another"), "this Redis belongs to another deployment: set FOURWAYS_PREFIX"),
        (used_by(history="7/1/1/1-2-3-4"), "this Redis was last used with another database that has the same origin."),
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


@pytest.mark.parametrize(
    ("limit", "raised"),
    [
        ("ALTER ROLE {role} CONNECTION LIMIT 46", "the CONNECTION LIMIT of the role"),
        ("ALTER DATABASE {database} CONNECTION LIMIT 46", "the CONNECTION LIMIT of the database"),
    ],
)
async def test_connections_are_counted_for_all_workers_beside_those_that_are_in_use(
    servers: Endpoints, tmp_path: Path, limit: str, raised: str
) -> None:
    """Each worker opens up to 13."""
    async with another_redis() as redis, granted_role(servers.database_url) as role:
        environment = {"REDIS_URL": redis, "DATABASE_URL": role.url}
        owner = await asyncpg.connect(role.owner_url)
        database = urlsplit(role.owner_url).path[1:]
        await owner.execute(limit.format(role=quoted(role.name), database=database))
        await owner.close()
        sessions = [await asyncpg.connect(role.url) for _ in range(7)]
        assert (await checked(tmp_path, environment, "--workers", "3"))[0] == 0
        sessions.append(await asyncpg.connect(role.url))
        code, screen = await checked(tmp_path, environment, "--workers", "3")
        for session in sessions:
            await session.close()
    assert code == 1
    assert (
        "3 processes open up to 39 connections to Postgres, which allows 46, and 8 are in use: run fewer workers, "
        f"lower FOURWAYS_DATABASE_CONNECTIONS, or raise {raised}"
    ) in screen


async def test_connections_that_are_reserved_are_only_for_a_role_that_may_use_them(servers: Endpoints) -> None:
    """Postgres 16 and newer can reserve some for roles that are no superusers."""
    with Standby.started(servers.database_url) as postgres:
        await postgres.promote()
        owner = await asyncpg.connect(postgres.url)
        await owner.execute("CREATE ROLE plain LOGIN")
        await owner.execute("CREATE ROLE favoured LOGIN IN ROLE pg_use_reserved_connections")
        await owner.execute("ALTER SYSTEM SET reserved_connections = 7")
        await owner.execute("ALTER SYSTEM SET superuser_reserved_connections = 5")
        await owner.execute("ALTER SYSTEM SET max_connections = 100")
        await owner.close()
        await asyncio.to_thread(postgres.stop)
        await asyncio.to_thread(postgres.start)
        for role, allowed in (("plain", 88), ("favoured", 95)):
            async with open_database(
                as_role(postgres.url, role), connections=1, timeout=timedelta(seconds=20), counted=lambda resource: None
            ) as database:
                settings = Settings(_env_file=None, database_connections=200)
                said = await lack_in_postgres(database, settings, 1)
            assert said is not None
            assert f"up to 205 connections to Postgres, which allows {allowed}, and " in said
            assert said.endswith("raise max_connections")


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
