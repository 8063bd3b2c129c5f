"""The service moves to another Redis, and to another Postgres, and loses nothing."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from urllib.parse import urlsplit

import asyncpg
import pytest
from redis.asyncio import Redis

from app.embedded import Endpoints
from app.settings import Settings
from tests.eventually import eventually
from tests.faults.another_redis import another_redis
from tests.faults.dump import dumped, restored_into
from tests.faults.replicating_redis import ReplicatingRedis
from tests.faults.standby import Standby
from tests.fresh_database import fresh_database
from tests.in_process import application
from tests.keyed import kill
from tests.maintenance.fleet import Fleet
from tests.migrated_database import migrated_database
from tests.outages.instance import running
from tests.outages.rows import PIECES, made

PAGE = "/page-views/home"
VIEWS = 40


@pytest.fixture
async def database_url(servers: Endpoints) -> AsyncIterator[str]:
    """A migrated database."""
    async with migrated_database(servers.database_url) as url:
        yield url


async def stored(database_url: str) -> int:
    """Returns the views of the page in Postgres."""
    sql = await asyncpg.connect(database_url)
    views = await sql.fetchval("SELECT coalesce(sum(views), 0)::bigint FROM page_views")
    await sql.close()
    return int(views)


async def done(database_url: str, statement: str) -> None:
    """Executes a statement, as with psql."""
    sql = await asyncpg.connect(database_url)
    await sql.execute(statement)
    await sql.close()


async def keeps_a_file(redis: ReplicatingRedis) -> None:
    """Lets this Redis have an append-only file, as the service demands."""
    async with Redis.from_url(redis.url) as admin:
        await admin.config_set("appendonly", "yes")


@pytest.mark.parametrize(("begins", "counted_again"), [("as a replica", 0), ("empty", 1)])
async def test_no_view_is_lost_when_the_service_moves_to_another_redis(
    database_url: str, begins: str, counted_again: int
) -> None:
    """A Redis that begins empty does not know the idempotency keys, and counts a repeated call again."""
    async with ReplicatingRedis.started() as old, ReplicatingRedis.started() as new:
        await keeps_a_file(old)
        await keeps_a_file(new)
        if begins == "as a replica":
            await new.follow(old)
        async with Fleet.of(2, Endpoints(old.url, database_url)) as fleet:
            before = tuple(fleet.members)
            starting = [asyncio.create_task(fleet.start(Endpoints(new.url, database_url))) for _ in before]
            for number in range(VIEWS):
                answer = await before[number % 2].connection.post(PAGE, {"count": 1}, key=f"view-{number}")
                assert (answer.status, answer.json()["views"]) == (202, number + 1)
            for member in before:
                await member.drained()
            for member in before:
                await fleet.end(member)
            assert await stored(database_url) == VIEWS
            await new.lead()
            for member in await asyncio.gather(*starting):
                assert (await member.connection.ask(PAGE)).json()["views"] == VIEWS
            answer = await member.connection.post(PAGE, {"count": 1}, key="view-0")
            assert (answer.status, answer.json()["views"]) == (202, VIEWS + counted_again)
            await member.drained()
            assert await stored(database_url) == VIEWS + counted_again


async def test_views_left_in_the_old_redis_are_counted_by_an_instance_that_is_started_on_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It serves neither stock nor views, as the new Redis is trusted, but it flushes. A total that is cached in the new
    Redis lacks these views until the next epoch begins."""
    monkeypatch.setattr("app.caching.write_behind.gathering.ABANDONED", timedelta(seconds=1))
    async with another_redis() as old, another_redis() as new:
        async with running(Endpoints(old, database_url)) as instance:
            instance.postgres.refuse()
            for number in range(VIEWS):
                assert (await instance.connection.post(PAGE, {"count": 1})).status == 202, number
            await kill(instance.service)
        async with Fleet.of(1, Endpoints(new, database_url)) as fleet:
            (member,) = fleet.members
            assert (await member.connection.post(PAGE, {"count": 1})).json()["views"] == 1
            assert (await member.connection.ask(PAGE)).json()["views"] == 1
            settings = Settings(_env_file=None, redis_url=old, database_url=database_url)
            async with application(settings) as client, Redis.from_url(old) as admin:

                async def is_empty() -> bool:
                    return not any([await admin.xlen(f"views:{{{shard}}}") for shard in range(4)])

                assert not await is_empty()
                assert (await client.get("/users/1")).status_code == 404
                assert (await client.put("/inventory/CUP", json={"quantity": 1})).status_code == 503
                assert (await client.post(PAGE, json={"count": 1})).status_code == 503
                await eventually(is_empty)
            assert await stored(database_url) == VIEWS + 1
            await done(database_url, "UPDATE epochs SET run = 'put back'")

            async def is_told() -> bool:
                answer = await member.connection.ask(PAGE)
                return answer.status == 200 and bool(answer.json()["views"] == VIEWS + 1)

            await eventually(is_told)


async def test_nothing_is_lost_when_the_service_moves_to_a_promoted_standby_of_its_postgres(database_url: str) -> None:
    async with another_redis() as redis_url:
        with Standby.started(database_url, follows=True) as standby:
            new_url = urlsplit(standby.url)._replace(path=urlsplit(database_url).path).geturl()
            async with Fleet.of(1, Endpoints(redis_url, database_url)) as fleet:
                (member,) = fleet.members
                user, _, stock = (await made(member.connection, "row", 1)).one_of_each
                for number in range(VIEWS):
                    assert (await member.connection.post(PAGE, {"count": 1})).status == 202, number
                assert (await member.connection.post(f"{stock}/adjustments", {"delta": -1})).status == 200
                await member.drained()
            sql = await asyncpg.connect(database_url)
            await standby.catch_up(await sql.fetchval("SELECT pg_current_wal_lsn()::text"))
            await sql.close()
            await standby.promote()
            async with Fleet.of(1, Endpoints(redis_url, new_url)) as fleet:
                (member,) = fleet.members
                assert (await member.connection.ask(user)).json()["name"] == "row"
                assert (await member.connection.ask(stock)).json()["quantity"] == PIECES - 1
                assert (await member.connection.ask(PAGE)).json()["views"] == VIEWS
                assert (await member.connection.ask(user, method="PATCH", body={"name": "Ada"})).status == 200


async def test_nothing_is_lost_when_the_service_moves_to_a_postgres_that_was_restored_from_a_dump(
    servers: Endpoints, database_url: str
) -> None:
    async with another_redis() as redis_url, fresh_database(servers.database_url) as new_url:
        async with Fleet.of(1, Endpoints(redis_url, database_url)) as fleet:
            (member,) = fleet.members
            user, _, stock = (await made(member.connection, "row", 1)).one_of_each
            for number in range(VIEWS):
                assert (await member.connection.post(PAGE, {"count": 1})).status == 202, number
            assert (await member.connection.post(f"{stock}/adjustments", {"delta": -1})).status == 200
            await member.drained()
        await restored_into(new_url, await dumped(database_url))
        async with Fleet.of(1, Endpoints(redis_url, new_url)) as fleet:
            (member,) = fleet.members
            assert (await member.connection.ask(user)).json()["name"] == "row"
            assert (await member.connection.ask(stock)).json()["quantity"] == PIECES - 1
            assert (await member.connection.ask(PAGE)).json()["views"] == VIEWS
            assert (await member.connection.post(PAGE, {"count": 1})).json()["views"] == VIEWS + 1
            assert (await member.connection.ask(user, method="PATCH", body={"name": "Ada"})).status == 200
            await member.drained()
        assert await stored(new_url) == VIEWS + 1
