"""A dump of Postgres takes the place of the database while the service runs, and both stores are restored."""

import asyncio
from urllib.parse import urlsplit

import asyncpg
import pytest
from redis.asyncio import Redis

from app.embedded import Endpoints
from app.schema import migrate
from tests.eventually import eventually
from tests.faults.another_redis import another_redis
from tests.faults.dump import dumped, restored_into
from tests.faults.postgres_program import run_program
from tests.faults.replicating_redis import ReplicatingRedis
from tests.fresh_database import fresh_database
from tests.maintenance.fleet import Fleet, Member
from tests.migrated_database import migrated_database
from tests.outages.instance import is_carried, running
from tests.outages.rows import PIECES, made

PAGE = "/page-views/home"


async def test_nothing_is_stale_after_a_dump_took_the_place_of_the_database_and_no_recent_view_is_lost(
    endpoints: Endpoints, sql: asyncpg.Connection
) -> None:
    """The views that Postgres has lost were counted within the last 30 s, and the processes that accepted them live."""
    async with another_redis() as redis_url, migrated_database(endpoints.database_url) as database_url:
        async with Fleet.of(2, Endpoints(redis_url, database_url)) as fleet:
            one, other = fleet.members
            user, product, stock = (await made(one.connection, "row", 1)).one_of_each
            await viewed(one, 3)
            await one.drained()
            dump = await dumped(database_url)
            for path in (user, product):
                assert (await one.connection.ask(path, method="PATCH", body={"name": "Lost"})).status == 200
            assert (await one.connection.post(f"{stock}/adjustments", {"delta": -1})).status == 200
            await viewed(one, 4)
            await one.drained()
            for member in fleet.members:
                assert await names(member, user, product) == {"Lost"}
                assert (await member.connection.ask(stock)).json()["quantity"] == PIECES - 1
            name = urlsplit(database_url).path[1:]
            await sql.execute(f"CREATE DATABASE {name}_restored")
            target = urlsplit(database_url)._replace(path=f"/{name}_restored").geturl()
            await asyncio.to_thread(run_program, "pg_restore", ["--single-transaction", "--dbname", target], dump)
            await sql.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
            await sql.execute("SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = $1", name)
            await viewed(other, 5)
            await sql.execute(f"ALTER DATABASE {name} RENAME TO {name}_replaced")
            await sql.execute(f"ALTER DATABASE {name}_restored RENAME TO {name}")
            restored = await asyncpg.connect(database_url)

            async def is_in_use() -> bool:
                if await restored.fetchval("SELECT max(n) FROM epochs") == 1:
                    return False  # Until the next poll, a hit may be of the database as it was.
                ready = [await member.connection.ask("/health/ready") for member in fleet.members]
                return all(answer.json()["status"] == "ready" for answer in ready)

            await eventually(is_in_use)
            for member in fleet.members:
                assert await names(member, user, product) == {"row"}
                assert (await member.connection.ask(stock)).json()["quantity"] == PIECES
            changed = await other.connection.ask(user, method="PATCH", body={"name": "Ada"})
            assert changed.status == 200
            assert await names(one, user) == {"Ada"}

            async def is_counted() -> bool:
                totals = [(await member.connection.ask(PAGE)).json().get("views") for member in fleet.members]
                return totals == [12, 12]

            await eventually(is_counted)
            await restored.close()
        await sql.execute(f"DROP DATABASE {name}_replaced")


@pytest.mark.parametrize(
    "dumped_when", ["before the views of the other copy", pytest.param("after them", marks=pytest.mark.prove)]
)
async def test_both_stores_are_restored_from_copies_of_different_moments(servers: Endpoints, dumped_when: str) -> None:
    """The copy of Redis has pending views. The dump has none of them, or has them already: they count once."""
    async with (
        ReplicatingRedis.started() as redis,
        ReplicatingRedis.started() as copy,
        fresh_database(servers.database_url) as database_url,
        fresh_database(servers.database_url) as restored_url,
    ):
        await asyncio.to_thread(migrate, database_url)
        for each in (redis, copy):
            async with Redis.from_url(each.url) as admin:
                await admin.config_set("appendonly", "yes")  # Else the service is not ready.
        dumps = []
        async with running(Endpoints(redis.url, database_url)) as instance:
            for step in range(2):
                for _ in range(5):
                    answer = await instance.connection.post(PAGE, {"count": 1})
                    assert answer.status == 202, answer
                if step == 1:
                    await copy.follow(redis)
                    await copy.lead()
                    instance.postgres.heal()
                await eventually(lambda: is_carried(instance))
                dumps.append(await dumped(database_url))
                instance.postgres.refuse()
        await restored_into(restored_url, dumps[dumped_when == "after them"])
        async with running(Endpoints(copy.url, restored_url)) as instance:
            await eventually(lambda: is_carried(instance))

            async def is_counted() -> bool:
                return bool((await instance.connection.ask(PAGE)).json().get("views") == 10)

            await eventually(is_counted)
            changed = await instance.connection.post(PAGE, {"count": 1})
            assert (changed.status, changed.json()["views"]) == (202, 11)


async def viewed(member: Member, times: int) -> None:
    """Counts views of the page, which are accepted."""
    for _ in range(times):
        answer = await member.connection.post(PAGE, {"count": 1})
        assert answer.status == 202, answer


async def names(member: Member, *paths: str) -> set[str]:
    """Returns the names that reads of these rows answer."""
    return {(await member.connection.ask(path)).json()["name"] for path in paths}
