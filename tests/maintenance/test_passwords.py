"""Passwords are rotated while requests arrive, and no request fails."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from app.embedded import Endpoints
from app.schema import migrate
from tests.eventually import eventually
from tests.faults.another_redis import another_redis
from tests.fresh_database import fresh_database
from tests.least_privilege import Role, granted_role, granted_user, quoted
from tests.maintenance.fleet import Fleet
from tests.maintenance.trickle import Trickle
from tests.outages.rows import made

OLD, NEW = "the-old-one", "the-new-one"
END_SESSIONS = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE usename = $1"


async def replaced(fleet: Fleet, trickle: Trickle, stores: Endpoints) -> None:
    """Takes each instance out of the load balancer, stops it, and starts another one, which joins when it is ready."""
    for member in tuple(fleet.members):
        await trickle.leave(member)
        await fleet.end(member)
        trickle.join(await fleet.start(stores))


async def test_no_request_fails_while_the_password_of_redis_is_rotated(servers: Endpoints) -> None:
    async with (
        another_redis() as url,
        granted_user(url, "") as old_url,
        fresh_database(servers.database_url) as database_url,
        Redis.from_url(url) as redis,
    ):
        await asyncio.to_thread(migrate, database_url)
        user, old = urlsplit(old_url).username, urlsplit(old_url).password
        new_url = old_url.replace(f":{old}@", f":{NEW}@")
        async with Fleet.of(2, Endpoints(old_url, database_url)) as fleet, Trickle.to(fleet.members) as trickle:
            await redis.execute_command("ACL", "SETUSER", user, f">{NEW}")  # type: ignore[no-untyped-call]
            await replaced(fleet, trickle, Endpoints(new_url, database_url))
            await redis.execute_command("ACL", "SETUSER", user, f"<{old}")  # type: ignore[no-untyped-call]
            async with Redis.from_url(old_url) as late:
                with pytest.raises(RedisConnectionError, match="invalid username-password"):
                    await late.ping()
            await trickle.goes_around()


@pytest.fixture
async def role(servers: Endpoints) -> AsyncIterator[Role]:
    """A role that has the grants, for others to be members of."""
    async with granted_role(servers.database_url) as role:
        yield role


@pytest.fixture
async def owner(role: Role) -> AsyncIterator[asyncpg.Connection]:
    """An operator's connection."""
    connection = await asyncpg.connect(role.owner_url)
    yield connection
    await connection.close()


@pytest.fixture
async def passwords(owner: asyncpg.Connection) -> AsyncIterator[None]:
    """Postgres asks the roles blue and green for their passwords. They are dropped at the end, if they are there."""
    rules = Path(await owner.fetchval("SHOW hba_file"))
    before = await asyncio.to_thread(rules.read_text)
    await asyncio.to_thread(rules.write_text, f"local all blue,green scram-sha-256\n{before}")
    await owner.execute("SELECT pg_reload_conf()")
    yield
    await asyncio.to_thread(rules.write_text, before)
    await owner.execute("SELECT pg_reload_conf()")
    await owner.execute("DROP ROLE IF EXISTS blue, green")


async def made_role(owner: asyncpg.Connection, role: Role, name: str, password: str) -> str:
    """Makes a role that is a member of `role`. Returns the address for a connection as it."""
    await owner.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}' IN ROLE {quoted(role.name)}")
    parts = urlsplit(role.owner_url)
    host = parts.netloc.rpartition("@")[2]
    await eventually(lambda: refuses(parts._replace(netloc=f"{name}:wrong@{host}").geturl()))
    return parts._replace(netloc=f"{name}:{password}@{host}").geturl()


async def refuses(url: str) -> bool:
    """Returns whether Postgres refuses the role and the password of this URL."""
    try:
        await (await asyncpg.connect(url)).close()
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError):
        return True
    return False


@pytest.mark.usefixtures("passwords")
async def test_no_request_fails_while_the_service_changes_to_a_role_with_another_password(
    role: Role, owner: asyncpg.Connection
) -> None:
    blue = await made_role(owner, role, "blue", OLD)
    async with (
        another_redis() as redis_url,
        Fleet.of(2, Endpoints(redis_url, blue)) as fleet,
        Trickle.to(fleet.members) as trickle,
    ):
        green = await made_role(owner, role, "green", NEW)
        await replaced(fleet, trickle, Endpoints(redis_url, green))
        await owner.execute("DROP ROLE blue")
        assert await refuses(blue)
        await trickle.goes_around()


@pytest.mark.usefixtures("passwords")
async def test_a_role_that_gets_another_password_keeps_its_connections_and_makes_no_new_ones(
    role: Role, owner: asyncpg.Connection
) -> None:
    """So requests fail only where an instance needs one more connection before it is restarted."""
    old = await made_role(owner, role, "blue", OLD)
    async with another_redis() as redis_url, Fleet.of(1, Endpoints(redis_url, old)) as fleet:
        (member,) = fleet.members
        (path,) = (await made(member.connection, "row", 1)).users
        await owner.execute(f"ALTER ROLE blue PASSWORD '{NEW}'")
        assert await refuses(old)
        answer = await member.connection.ask(path, method="PATCH", body={"name": "Ada"})
        assert answer.status == 200, answer
        await owner.execute(END_SESSIONS, "blue")
        answer = await member.connection.ask(path, method="PATCH", body={"name": "Ada King"})
        assert (answer.status, answer.json()["type"]) == (503, "database-unavailable"), answer
        ready = await member.connection.ask("/health/ready")
        assert (ready.status, "password authentication failed" in ready.json()["parts"]["postgres"]) == (200, True)
        await fleet.end(member)
        member = await fleet.start(Endpoints(redis_url, old.replace(OLD, NEW)))
        answer = await member.connection.ask(path, method="PATCH", body={"name": "Ada King"})
        assert answer.status == 200, answer
