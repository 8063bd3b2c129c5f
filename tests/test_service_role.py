"""`fourways grants apply` makes the role of the service, and permits it what the service needs."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
import pytest

from app.database import open_database
from app.embedded import Endpoints
from app.grants import quoted
from app.privileges import missing_in_postgres
from app.schema import LOCK, migrate
from app.service_role import PATIENCE, prepare_role
from app.settings import Settings, SettingsError
from tests.command_line import says
from tests.eventually import eventually
from tests.faults.another_redis import another_redis
from tests.fresh_database import fresh_database
from tests.in_process import application
from tests.least_privilege import as_role
from tests.migrated_database import migrated_database

ATTRIBUTES = "rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls"
OWNED = "SELECT count(*) FROM pg_shdepend WHERE refobjid = $1::regrole AND deptype = 'o'"
PASSWORDS = ("secret", "it's \\ 100 % 'quoted'", "pässwörd ²", "SCRAM-SHA-256$")


@pytest.fixture
async def role(servers: Endpoints) -> AsyncIterator[str]:
    """The name of a role that does not exist, and is asked for its password. It is dropped at the end."""
    name = f'Shop\'s "app" {secrets.token_hex(4)}'
    sql = await asyncpg.connect(servers.database_url)
    rules = Path(await sql.fetchval("SHOW hba_file"))
    before = await asyncio.to_thread(rules.read_text)
    await asyncio.to_thread(rules.write_text, f"local all {quoted(name)} scram-sha-256\n{before}")
    try:
        await sql.execute("SELECT pg_reload_conf()")
        await eventually(lambda: is_refused(with_password(servers.database_url, name, "any")))
        yield name
    finally:
        await asyncio.to_thread(rules.write_text, before)
        await sql.execute("SELECT pg_reload_conf()")
        await sql.execute(f"DROP ROLE IF EXISTS {quoted(name)}")
        await sql.close()


@pytest.fixture
async def owner_url(servers: Endpoints, role: str) -> AsyncIterator[str]:
    """A migrated database, as its owner. It is dropped before the role is, which has rights there."""
    async with migrated_database(servers.database_url) as url:
        yield url


@pytest.fixture
async def owner(owner_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A superuser in that database."""
    connection = await asyncpg.connect(owner_url)
    yield connection
    await connection.close()


def with_password(url: str, name: str, password: str) -> str:
    """Returns the address for a connection as this role."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(name, safe='')}:{quote(password, safe='')}@{host}"))


async def is_refused(url: str) -> bool:
    """Returns whether Postgres refuses the password of this URL."""
    try:
        await (await asyncpg.connect(url)).close()
    except asyncpg.InvalidPasswordError:
        return True
    except asyncpg.InvalidAuthorizationSpecificationError:  # It does not ask for a password yet.
        return False
    return False


async def applied(owner_url: str, url: str) -> tuple[int, str]:
    """Returns what `fourways grants apply` says."""
    return await says("grants", "apply", OWNER_URL=owner_url, DATABASE_URL=url)


async def stored(owner: asyncpg.Connection, role: str) -> str | None:
    """Returns what Postgres stores of the role's password."""
    found: str | None = await owner.fetchval("SELECT rolpassword FROM pg_authid WHERE rolname = $1", role)
    return found


@pytest.mark.parametrize("password", PASSWORDS, ids=range(len(PASSWORDS)))
async def test_the_role_is_made_with_its_password_and_has_no_more_than_it_needs(
    owner_url: str, owner: asyncpg.Connection, role: str, password: str
) -> None:
    url = with_password(owner_url, role, password)
    done = (0, f"The role {role!r} may do what the service needs.\n")
    assert await applied(owner_url, url) == done
    attributes = await owner.fetchrow(f"SELECT {ATTRIBUTES} FROM pg_roles WHERE rolname = $1", role)
    assert attributes is not None
    assert not any(attributes)
    assert await owner.fetchval(OWNED, quoted(role)) == 0
    async with open_database(url, connections=1, timeout=PATIENCE, counted=lambda resource: None) as database:
        assert await missing_in_postgres(database) is None
    assert await is_refused(with_password(owner_url, role, "another"))
    before = await stored(owner, role)
    assert await applied(owner_url, url) == done
    assert await stored(owner, role) == before, "Who can log in keeps the password."


async def test_a_new_password_takes_the_place_of_the_old_one(owner_url: str, role: str) -> None:
    old, new = (with_password(owner_url, role, password) for password in ("old", "new"))
    await prepare_role(owner_url, old)
    await prepare_role(owner_url, new)
    assert await is_refused(old)
    await (await asyncpg.connect(new)).close()


async def test_the_password_of_a_role_with_more_rights_is_left_alone(
    owner_url: str, owner: asyncpg.Connection, role: str
) -> None:
    """DATABASE_URL names an administrator, with a mistyped password."""
    await owner.execute(f"CREATE ROLE {quoted(role)} LOGIN SUPERUSER PASSWORD 'right'")
    with pytest.raises(SettingsError, match="a superuser or the owner of the tables: name a role of its own"):
        await prepare_role(owner_url, with_password(owner_url, role, "mistyped"))
    assert not await is_refused(with_password(owner_url, role, "right"))


async def test_the_password_itself_is_never_sent(owner_url: str, owner: asyncpg.Connection, role: str) -> None:
    """Somebody else changes the role and has not committed, so the statement waits, and can be read."""
    await prepare_role(owner_url, with_password(owner_url, role, "old"))
    waiting = "SELECT query FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'ALTER ROLE%'"
    # Not by the owner: in a transaction, the activity is that of its first look.
    other = await asyncpg.connect(owner_url)
    change = other.transaction()
    await change.start()
    await other.execute(f"ALTER ROLE {quoted(role)} CONNECTION LIMIT 9")
    changing = asyncio.create_task(prepare_role(owner_url, with_password(owner_url, role, "kanarienvogel")))

    async def waits() -> bool:
        assert not changing.done(), changing
        return await owner.fetchval(waiting) is not None

    await eventually(waits)
    statement = await owner.fetchval(waiting)
    await change.rollback()
    await changing
    await other.close()
    assert "kanarienvogel" not in statement
    assert await stored(owner, role) in statement


async def test_a_role_of_somebody_else_needs_no_right_to_make_roles(
    owner_url: str, owner: asyncpg.Connection, role: str
) -> None:
    """As where an administrator makes the roles, and the owner of the tables only migrates."""
    table_owner = f"owner {secrets.token_hex(4)}"
    await owner.execute(f"CREATE ROLE {quoted(table_owner)} LOGIN")
    try:
        for kind, names in (
            ("TABLE", "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"),
            ("SEQUENCE", "SELECT 'row_version'"),
            ("FUNCTION", "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace"),
        ):
            for (name,) in await owner.fetch(names):
                await owner.execute(f"ALTER {kind} {name} OWNER TO {quoted(table_owner)}")
        await owner.execute(f"ALTER DATABASE {urlsplit(owner_url).path[1:]} OWNER TO {quoted(table_owner)}")
        await owner.execute(f"ALTER SCHEMA public OWNER TO {quoted(table_owner)}")
        migrating, url = as_role(owner_url, table_owner), with_password(owner_url, role, "secret")
        code, said = await applied(migrating, url)
        assert (code, said) == (1, "The database does not do it: permission denied to create role.\n")
        await owner.execute(f"CREATE ROLE {quoted(role)} LOGIN PASSWORD 'secret'")
        assert (await applied(migrating, url))[0] == 0
    finally:
        await owner.execute(f"REASSIGN OWNED BY {quoted(table_owner)} TO CURRENT_USER")
        await owner.execute(f"DROP ROLE {quoted(table_owner)}")


async def test_grants_wait_for_a_migration_and_for_each_other(
    owner_url: str, owner: asyncpg.Connection, role: str
) -> None:
    """M adds a table, and has not committed
                                        A and B grant what their version needs: there is no such table
    M commits
                                        A grants, and B grants: "tuple concurrently updated"
    """
    await owner.execute("ALTER TABLE parked_views RENAME TO away")
    migration = owner.transaction()
    await migration.start()
    await owner.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
    await owner.execute("ALTER TABLE away RENAME TO parked_views")
    url = with_password(owner_url, role, "secret")
    both = [asyncio.create_task(prepare_role(owner_url, url)) for _ in range(2)]
    waiting = """
        SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """

    async def both_wait() -> bool:
        assert not any(one.done() for one in both), both
        return bool(await owner.fetchval(waiting) == 2)

    await eventually(both_wait)
    await migration.commit()
    assert await asyncio.gather(*both) == [role, role]


async def test_an_instance_that_started_first_is_ready_once_its_role_is(servers: Endpoints, role: str) -> None:
    """As on Kubernetes, where a rollout waits for the Job."""
    async with another_redis() as redis_url, fresh_database(servers.database_url) as owner_url:
        url = with_password(owner_url, role, "secret")
        async with application(Settings(_env_file=None, redis_url=redis_url, database_url=url)) as client:

            async def status(wanted: int) -> bool:
                return (await client.get("/health/ready")).status_code == wanted

            assert await status(503), "There is no such role."
            await asyncio.to_thread(migrate, owner_url)
            assert await status(503), "There is no such role yet."
            await prepare_role(owner_url, url)
            await eventually(lambda: status(200))


async def test_a_database_without_the_migrations_is_named(servers: Endpoints, role: str) -> None:
    async with fresh_database(servers.database_url) as empty:
        assert await applied(empty, with_password(empty, role, "secret")) == (
            1,
            "The database lacks a migration: run `alembic upgrade head`.\n",
        )


async def test_two_urls_of_two_databases_are_named(owner_url: str, servers: Endpoints, role: str) -> None:
    async with fresh_database(servers.database_url) as empty:
        code, said = await applied(owner_url, with_password(empty, role, "secret"))
    assert code == 1
    assert said == (
        "DATABASE_URL leads to another database than OWNER_URL, or to another schema: a migration is missing: run "
        "`alembic upgrade head`.\n"
    )


@pytest.mark.parametrize("missing", ["DATABASE_URL", "OWNER_URL"])
async def test_a_missing_url_is_named(missing: str) -> None:
    given = {"OWNER_URL": "postgresql://owner@localhost/db", "DATABASE_URL": "postgresql://app@localhost/db"}
    del given[missing]
    assert await says("grants", "apply", **given) == (
        1,
        f"{missing} is missing: the role of OWNER_URL permits the role of DATABASE_URL what the service needs.\n",
    )
