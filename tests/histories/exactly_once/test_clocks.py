"""Two instances have different copies of Redis' clock, and Redis loses everything in between: each view that was
answered counts once, and none becomes a dead letter.
"""

import asyncio

import pytest
from redis.asyncio import Redis

from app.embedded import Endpoints
from tests.eventually import eventually
from tests.faults.stores import Stores
from tests.histories.exactly_once.application import Application, Connection
from tests.histories.exactly_once.ends import dead_letters, stored, waiting

pytestmark = pytest.mark.not_on("cluster", because="its `stores` have one Redis")

VIEWS = 100


@pytest.mark.parametrize("ahead", [2, 25, -2.5])
async def test_two_instances_with_different_clocks_count_each_view_once(
    stores: Stores, way: Endpoints, ahead: float
) -> None:
    endpoints, page = stores.endpoints, f"clock/{ahead}"
    before = await dead_letters(endpoints.database_url)

    async def view(application: Application) -> None:
        connection = await Connection.to(application.url)
        for _ in range(VIEWS):
            assert (await connection.post("/page-views", {"views": [{"page": page, "count": 1}]})).status == 202
        await connection.close()

    async with (
        Application.running(way.redis_url, way.database_url, {}, workers=1) as right,
        Application.running(
            way.redis_url,
            way.database_url,
            {"AHEAD": str(ahead)},
            app="tests.histories.exactly_once.ahead:app",
            workers=1,
        ) as wrong,
        Redis.from_url(endpoints.redis_url) as redis,
    ):
        for _ in range(2):
            await asyncio.gather(view(right), view(wrong))
            await redis.flushall()

        async def all_is_there() -> bool:
            return (await stored(endpoints.database_url)).get(page, 0) >= 4 * VIEWS

        await eventually(all_is_there)
    # When they stopped, each checked once more for the views that it had accepted.
    assert not await waiting(endpoints.redis_url)
    assert (await stored(endpoints.database_url))[page] == 4 * VIEWS
    assert await dead_letters(endpoints.database_url) == before
