"""Two instances, with three workers each, count views of the same hot pages: flushers that lock the same rows do not
deadlock, no client gets an error, and the sums are exact.
"""

import asyncio
import random
from collections import Counter

import pytest

from app.embedded import Endpoints
from tests.eventually import eventually
from tests.faults.stores import Stores
from tests.histories.exactly_once.application import Application, Connection
from tests.histories.exactly_once.ends import carried, psql, stored

pytestmark = pytest.mark.not_on("cluster", because="its `stores` have one Redis")

CALLS = [200, pytest.param(6_000, marks=pytest.mark.prove)]
CLIENTS = 12
PAGES = 200
EAGER = {
    # A few calls per flush, so that two flushes share nearly all of their rows, and six meet in Postgres.
    "FOURWAYS_FLUSH_VIEWS": "600",
    "FOURWAYS_FLUSH_INTERVAL": "0.05",
    "FOURWAYS_REDIS_TIMEOUT": "30",
    "FOURWAYS_DATABASE_TIMEOUT": "30",
}
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
FLUSHES = "SELECT count(*) FROM applied"


@pytest.mark.parametrize("calls", CALLS)
async def test_two_instances_count_the_same_hot_pages_without_a_deadlock(
    stores: Stores, way: Endpoints, capsys: pytest.CaptureFixture[str], calls: int
) -> None:
    endpoints, randomness = stores.endpoints, random.Random(calls)
    counted, statuses = Counter[str](), Counter[int]()
    pages = [f"hot-{calls}/{number}" for number in range(PAGES)]

    async def view(url: str, own: random.Random) -> None:
        connection = await Connection.to(url)
        while statuses.total() < calls:
            views = {page: own.randint(1, 3) for page in own.sample(pages, PAGES // 2)}
            body = {"views": [{"page": page, "count": count} for page, count in views.items()]}
            answer = await connection.post("/page-views", body)
            statuses[answer.status] += 1
            if answer.status == 202:
                counted.update(views)
        await connection.close()

    async with psql(endpoints.database_url) as sql:
        before, log = await sql.fetchval(DEADLOCKS), stores.postgres_log.read_text().count("deadlock detected")
        batches = await sql.fetchval(FLUSHES)
    async with (
        Application.running(way.redis_url, way.database_url, EAGER) as one,
        Application.running(way.redis_url, way.database_url, EAGER) as other,
    ):
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(view((one, other)[number % 2].url, random.Random(randomness.random())))
        took = await eventually(lambda: carried(endpoints.redis_url))
        found = {page: views for page, views in (await stored(endpoints.database_url)).items() if page in counted}
        consumers = (await one.told())["consumers"]
    # A session reports its counts when it ends.
    async with psql(endpoints.database_url) as sql:
        after, batches = await sql.fetchval(DEADLOCKS), await sql.fetchval(FLUSHES) - batches
    with capsys.disabled():
        print(
            f"\nTwo instances: {statuses.total():,} calls, {counted.total():,} views of {PAGES} pages answered, in"
            f" {batches:,} batches by {consumers} flushers; {after - before} deadlocks; carried {took:.1f} s later",
            end="",
        )
    assert set(statuses) == {202}
    assert found == counted
    assert after == before
    assert stores.postgres_log.read_text().count("deadlock detected") == log
    assert consumers > 3, "Flushers of both have carried something."
