"""Sentinel switches to a replica while the service is in use: reads and writes go on, and no accepted view is lost."""

import time
from collections.abc import Awaitable, Callable, Mapping

import asyncpg
import pytest

from tests.eventually import eventually
from tests.faults.sentinel import Watched
from tests.keyed import Keyed
from tests.outages.instance import PATIENT
from tests.outages.load import LONGEST, VIEW, Load
from tests.outages.rows import Rows, made
from tests.service import serving

Fault = Callable[[Watched], Awaitable[None]]


async def killed(watched: Watched) -> None:
    """The primary is killed (`kill -9`), and the Sentinels notice."""
    await watched.primary.kill()
    await watched.switched()


async def cut_off(watched: Watched) -> None:
    """The primary lives on, and answers the service, but neither its replica nor the Sentinels."""
    await watched.part_from_primary()
    await watched.switched()


FAULTS: Mapping[str, Fault] = {"cut off": cut_off, "killed": killed, "switched by hand": Watched.switch}
ROUNDS = [
    pytest.param(fault, number, marks=[pytest.mark.prove] if number else []) for fault in FAULTS for number in range(3)
]


@pytest.mark.parametrize(("fault", "number"), ROUNDS)
async def test_a_failover_under_load_shows_nothing_stale_and_loses_no_accepted_view(
    watched: Watched,
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


async def _takes_all(connection: Keyed, rows: Rows) -> bool:
    """Whether changes of stock and views are accepted: those need Redis."""
    adjusted = await connection.post(f"{rows.stocks[0]}/adjustments", {"delta": 1})
    viewed = await connection.post(rows.page, {"count": 1})
    return (adjusted.status, viewed.status) == (200, 202)


async def _are_counted(sql: asyncpg.Connection, rows: Rows, accepted: int) -> bool:
    counted = await sql.fetchval("SELECT views FROM page_views WHERE page = $1", rows.page.removeprefix("/page-views/"))
    return counted is not None and counted >= accepted
