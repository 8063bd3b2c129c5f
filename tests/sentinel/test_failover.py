"""Sentinel switches to a replica while the service is in use: reads and writes go on, and no accepted view is lost."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

import asyncpg
import pytest

from app.metrics import Metrics
from app.settings import Settings
from app.wiring import open_resources
from tests.eventually import eventually
from tests.faults.postgres_wire import PostgresWire
from tests.faults.watched_redis import WatchedRedis
from tests.keyed import Keyed
from tests.outages.instance import PATIENT
from tests.outages.load import LONGEST, VIEW, Load
from tests.outages.rows import Rows, made
from tests.service import serving

pytestmark = pytest.mark.not_on("redis", because="each test has a primary, a replica and three Sentinels")

Fault = Callable[[WatchedRedis], Awaitable[None]]


async def killed(watched: WatchedRedis) -> None:
    """The primary is killed (`kill -9`), and the Sentinels notice."""
    await watched.primary.kill()
    await watched.switched()


async def cut_off(watched: WatchedRedis) -> None:
    """The primary lives on, and answers the service, but neither its replica nor the Sentinels."""
    await watched.part_from_primary()
    await watched.switched()


async def switched_there_and_back(watched: WatchedRedis) -> None:
    """The Sentinels switch, make a replica of the former primary after a while, and switch back to it."""
    await watched.switch()
    await eventually(watched.primary.is_replica)
    await watched.switch(watched.primary)


FAULTS: Mapping[str, Fault] = {
    "cut off": cut_off,
    "killed": killed,
    "switched by hand": WatchedRedis.switch,
    "switched there and back": switched_there_and_back,
}
SAMPLE = [("switched by hand", 0)]
ROUNDS = [
    pytest.param(fault, number, marks=[] if (fault, number) in SAMPLE else [pytest.mark.prove])
    for fault in FAULTS
    for number in range(3)
]


@pytest.mark.parametrize(("fault", "number"), ROUNDS)
async def test_a_failover_under_load_shows_nothing_stale_and_loses_no_accepted_view(
    watched: WatchedRedis,
    database_url: str,
    sql: asyncpg.Connection,
    capsys: pytest.CaptureFixture[str],
    fault: str,
    number: int,
) -> None:
    """Replication is asynchronous: the replica lacks the last entries. The processes that accepted them know them, and
    accept them again."""
    async with (
        serving(watched.url, database_url, workers=1, **PATIENT) as one,
        serving(watched.url, database_url, workers=1, **PATIENT) as other,
    ):
        connections = [await Keyed.to(service.url) for service in (one, other)]
        rows, others = await made(connections[0], "rows"), await made(connections[0], "others", 1)
        load = Load([one, other], rows, rate=50, seed=number)
        async with load.running():
            await load.hears(100)
            began = time.monotonic()
            await FAULTS[fault](watched)
            switched = time.monotonic()
            for connection in connections:
                await eventually(lambda: _takes_all(connection, others))  # noqa: B023  # It is awaited here.
            served = time.monotonic()
            await load.hears(100)
        accepted = sum(heard.kind == VIEW and heard.status == 202 for heard in load.heard)
        await eventually(lambda: _are_counted(sql, rows, accepted))
        await load.check(sql)
        fates = [(await connection.ask("/write-behind")).json() for connection in connections]
        assert sum(fate["lost"] for fate in fates) == 0
        for connection in connections:
            await connection.close()
    assert max(heard.took for heard in load.heard) < LONGEST
    during = load.within(began, served)
    recovered = sum(fate["recovered"] for fate in fates)
    with capsys.disabled():
        print(
            load.report(
                f"Primary {fault}: switched after {switched - began:.1f} s, all is served {served - switched:.2f} s "
                f"later, {recovered} views recovered",
                during,
            )
        )


async def test_views_that_only_a_dead_primary_had_are_accepted_again_and_counted_once(
    watched: WatchedRedis, database_url: str, sql: asyncpg.Connection
) -> None:
    """The replica lags, and lacks a hundred views      none of them is in Postgres
    the primary dies                                    the process that accepted them accepts them again
    """

    async def is_recovered() -> bool:
        return metrics.total("views_recovered") == 100

    async def are_counted() -> bool:
        return bool(await sql.fetchval("SELECT sum(views) FROM page_views") == 100)

    metrics = Metrics()
    async with PostgresWire(database_url) as postgres:
        settings = Settings(
            _env_file=None,
            redis_url=watched.url,
            database_url=postgres.url,
            redis_timeout=timedelta(seconds=2),
            database_timeout=timedelta(seconds=10),
        )
        async with open_resources(settings, metrics) as resources:
            await eventually(lambda: _is(resources.cache.caches[0].trust.held))
            async with postgres.holding("INSERT INTO applied"):
                await watched.primary.cut_off("replica")
                await asyncio.gather(*(resources.page_views.add(f"{number % 7}", 1) for number in range(100)))
                await watched.primary.kill()
                await watched.switched()
                await eventually(is_recovered)
            # The flush that was held arrives, too: the ledger has its batches only once.
            await eventually(are_counted)
        assert metrics.total("views_lost") == 0
    assert await are_counted()


async def _is(condition: bool) -> bool:
    return condition


async def _takes_all(connection: Keyed, rows: Rows) -> bool:
    """Whether changes of stock and views are accepted: those need Redis."""
    adjusted = await connection.post(f"{rows.stocks[0]}/adjustments", {"delta": 1})
    viewed = await connection.post(rows.page, {"count": 1})
    return (adjusted.status, viewed.status) == (200, 202)


async def _are_counted(sql: asyncpg.Connection, rows: Rows, accepted: int) -> bool:
    counted = await sql.fetchval("SELECT views FROM page_views WHERE page = $1", rows.page.removeprefix("/page-views/"))
    return counted is not None and counted >= accepted
