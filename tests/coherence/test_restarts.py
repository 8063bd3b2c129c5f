"""A Redis that goes back in time: it was killed before its last writes reached its disk.

redis-py reconnects silently. What came back is not believed before the changes of the last minute have been delivered
again, totals of page views are rebuilt, and a write waits for that.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from app.caching import (
    Breaker,
    Cache,
    CacheError,
    CacheUnavailable,
    Identity,
    Outcome,
    RedisClock,
    Region,
    Trust,
    open_redis,
)
from app.caching.lease import Lease
from app.caching.moment import NEVER
from app.embedded import Endpoints
from app.embedded.home import make_home
from app.embedded.redis_server import SOCKET, RedisServer
from app.inventory.models import Adjustment, Setting
from app.users.models import User
from tests.coherence.conftest import SOON, TAKES, NewInstance
from tests.embedded.apps import servers_below
from tests.eventually import PATIENCE, eventually
from tests.open_directory import open_directory
from tests.settled import settled
from tests.users.conftest import LIFETIMES

pytestmark = pytest.mark.not_on("cluster", because="its nodes keep nothing on disk")


class Past:
    """A Redis, and a copy of its disk from an earlier time."""

    def __init__(self, directory: Path) -> None:
        home = make_home(directory / "redis", SOCKET)
        self._data, self._copy = home.directory, directory / "copy"
        self._server = RedisServer(home, directory / "redis.log")
        self.url = self._server.url
        self._server.start()

    async def remember(self, *what: str) -> None:
        """Returns when the disk has all of this, and a copy is made."""

        async def is_there() -> bool:
            shutil.rmtree(self._copy, ignore_errors=True)
            shutil.copytree(self._data, self._copy, ignore=lambda directory, names: set(names) - set(_files(names)))
            stored = b"".join(path.read_bytes() for path in self._copy.rglob("*") if path.is_file())
            return all(word.encode() in stored for word in what)

        await eventually(is_there)

    async def come_back(self) -> None:
        """Kills Redis, and starts it with the copy."""
        for process in servers_below([self._data]):
            process.kill()
            process.wait(PATIENCE)
        shutil.copytree(self._copy, self._data, dirs_exist_ok=True)
        await asyncio.to_thread(self._server.start)

    def stop(self) -> None:
        """Stops Redis."""
        self._server.stop()


def _files(names: list[str]) -> list[str]:
    return [name for name in names if name.startswith("appendonly")]


@pytest.fixture
async def past(servers: Endpoints) -> AsyncIterator[Past]:
    """A Redis that belongs to the test: the other tests need theirs."""
    with open_directory() as directory:
        past = Past(directory)
        yield past
        await asyncio.to_thread(past.stop)


@pytest.fixture
def endpoints(endpoints: Endpoints, past: Past) -> Endpoints:
    """The Redis that can go back, and the Postgres of all tests, emptied."""
    return Endpoints(past.url, endpoints.database_url)


async def test_changes_that_redis_has_forgotten_are_delivered_again_before_it_is_believed(
    new_instance: NewInstance, ada: int, sql: asyncpg.Connection, past: Past
) -> None:
    """A commits the new row, invalidates, and answers; the row of the outbox is done
    Redis is killed, and starts with the old value
                                        R on A or B would hit the old value, which no undone row would ever remove
    """
    a, b = await new_instance(), await new_instance()
    await b.hits(ada)
    await past.remember("Ada Lovelace")
    await a.rename(ada, "Ada King")
    await a.settles()
    await b.hits(ada)
    a.redis.refuse()
    b.redis.refuse()
    await past.come_back()
    async with Redis.from_url(past.url, protocol=2) as redis:
        assert b"Lovelace" in (await redis.get(f"users:{{{ada}}}") or b"")
    for instance in (b, a):
        instance.redis.heal()
        while (reading := await instance.users.get(ada)).outcome is not Outcome.HIT:
            assert reading.value is not None
            assert reading.value.name == "Ada King"
        assert reading.value is not None
        assert reading.value.name == "Ada King"


async def test_a_redis_that_restarts_between_two_commands_is_not_believed(
    ada: int, past: Past, sql: asyncpg.Connection
) -> None:
    """R has a connection, which is idle
    Redis is killed, and starts with the old value
    R asks: redis-py reconnects silently and without an error, and would hit the old value
    """
    clock, trust = RedisClock(), Trust()
    breaker, identity = Breaker(trust), Identity(trust)
    async with (
        open_redis(past.url, timeout=timedelta(seconds=10), connections=2, clock=clock, identity=identity) as redis,
        Region[int, User](
            Cache(redis, clock, trust, breaker, identity),
            "users",
            User,
            lifetimes=LIFETIMES,
            settled=settled,
        ) as region,
    ):
        await breaker.probe(redis, redis.ping)
        trust.grant(trust.losses, NEVER)
        lease = await region.lookup(ada)
        assert isinstance(lease, Lease)
        row = dict(await sql.fetchrow("SELECT id, name, email, version, created_at, updated_at FROM users") or {})
        await region.fill(ada, lease.token, User(**row))
        assert await region.find(ada) is not None
        await past.remember("Ada Lovelace")
        await region.invalidate(ada, row["version"] + 1)
        assert await region.find(ada) is None
        await past.come_back()
        run = identity.run
        with pytest.raises(CacheUnavailable, match="restarted"):
            await region.find(ada)
        assert identity.run != run
        assert trust.lost
        with pytest.raises(CacheUnavailable, match="it has restarted"):
            await region.find(ada)


async def test_totals_of_a_redis_that_has_forgotten_views_are_rebuilt(
    new_instance: NewInstance, sql: asyncpg.Connection, past: Past
) -> None:
    """C9. Three views are counted, and flushed to Postgres
    four more are counted, and flushed
                                        Redis is killed, and starts with a total of three
    R would be told three until that total expires: Postgres has seven
    """
    instance = await new_instance()
    views = instance.resources.page_views

    async def carried(number: int) -> None:
        async def is_carried() -> bool:
            stored = await sql.fetchval("SELECT views FROM page_views") == number
            return stored and (await views.backlog()).amount == 0

        await eventually(is_carried)

    await views.add("home", 3)
    await carried(3)
    assert (await views.get("home")).amount == 3
    assert (await views.get("home")).cached
    await past.remember(":total:")
    await views.add("home", 4)
    await carried(7)
    instance.redis.refuse()
    await past.come_back()
    async with Redis.from_url(past.url, protocol=2) as redis:
        (name,) = await redis.keys("*:total:*")
        assert await redis.get(name) == b"3"
    instance.redis.heal()

    async def answers() -> bool:
        try:
            total = await views.get("home")
        except CacheError:
            return False
        assert total.amount == 7
        return total.cached

    await eventually(answers)


async def test_a_write_whose_revocation_redis_has_forgotten_leaves_no_old_value(
    unbounded_trust: None, new_instance: NewInstance, sql: asyncpg.Connection, past: Past
) -> None:
    """W on A revokes, and Redis has that only in memory; W has not committed yet
    Redis is killed, and starts with the old value
                                        A and B deliver all changes again (W's does not exist yet), and believe Redis
    W commits, and answers; no relay has delivered its change yet
                                        R on B would hit the old value, but that belongs to another run of Redis
    """
    a, b = await new_instance(), await new_instance()
    await a.resources.inventory.put("CUP", Setting(30))
    await a.settles()

    async def hits() -> bool:
        return (await b.resources.inventory.get("CUP")).outcome is Outcome.HIT

    await eventually(hits)
    await past.remember('"quantity":30')
    async with (
        a.postgres.holding("^INSERT INTO stock_adjustments") as commit,
        a.postgres.holding(TAKES) as relay_of_a,
        b.postgres.holding(TAKES) as relay_of_b,
    ):
        write = asyncio.create_task(a.resources.inventory.put("CUP", Adjustment(-1, "order-1")))
        await asyncio.wait_for(commit.arrived.wait(), PATIENCE)
        run = b.identity.run
        await past.come_back()

        async def all_believe_again() -> bool:
            return all(each.trust.held and each.identity.run != run for each in (a, b))

        await eventually(all_believe_again)
        commit.release()
        await asyncio.wait_for(relay_of_a.arrived.wait(), PATIENCE)
        await asyncio.wait_for(relay_of_b.arrived.wait(), PATIENCE)
        await asyncio.wait_for(write, SOON)
        assert await b.quantity("CUP") == 29
        assert await a.quantity("CUP") == 29
    assert await b.quantity("CUP") == 29
    assert await a.quantity("CUP") == 29


async def test_a_redis_that_hides_its_run_gets_the_last_changes_again_after_a_lost_connection(
    new_instance: NewInstance, ada: int, endpoints: Endpoints, past: Past, sql: asyncpg.Connection
) -> None:
    """A's user may not use INFO. A commits the new row, invalidates, and answers; the row of the outbox is done
    A's connections are lost, and the old value is back: Redis has restarted, and nothing shows that it is another run
    R on A would hit the old value
    """
    async with Redis.from_url(past.url, protocol=2) as redis:
        await redis.acl_setuser("silent", enabled=True, passwords=["+word"], keys=["*"], commands=["+@all", "-info"])
        a = await new_instance(
            endpoints=Endpoints(past.url.replace("unix://", "unix://silent:word@"), endpoints.database_url)
        )
        await a.hits(ada)
        old = await redis.get(f"users:{{{ada}}}")
        epoch = await sql.fetchval("SELECT max(n) FROM epochs")
        await a.rename(ada, "Ada King")
        await a.settles()
        a.redis.refuse()
        await redis.set(f"users:{{{ada}}}", old or b"")
        await redis.delete(f"users:{{{ada}}}:floor")
        a.redis.heal()
        while (reading := await a.users.get(ada)).outcome is not Outcome.HIT:
            assert reading.value is not None
            assert reading.value.name == "Ada King"
        assert reading.value is not None
        assert reading.value.name == "Ada King"
        assert await sql.fetchval("SELECT max(n) FROM epochs") == epoch, "A lost connection makes nothing cold."
