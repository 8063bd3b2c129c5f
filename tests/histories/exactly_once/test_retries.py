"""A call that is repeated with its Idempotency-Key counts once: however often it is repeated, at whichever worker, and
while workers die and Redis restarts.
"""

import asyncio
import random

import pytest

from app.embedded import Endpoints
from tests.eventually import eventually
from tests.faults.stores import Stores
from tests.histories.exactly_once.application import Application
from tests.histories.exactly_once.books import Books
from tests.histories.exactly_once.ends import carried, stored
from tests.histories.exactly_once.storm import fsync
from tests.histories.exactly_once.visitor import Client

pytestmark = pytest.mark.not_on("cluster", because="its `stores` have one Redis")

CLIENTS = 24
KEYS = 5
PAGES = 20
RETRIES = [500, pytest.param(10_000, marks=pytest.mark.prove)]


@pytest.mark.parametrize("retries", RETRIES)
async def test_a_call_that_is_repeated_thousands_of_times_is_counted_once(
    stores: Stores, way: Endpoints, capsys: pytest.CaptureFixture[str], retries: int
) -> None:
    endpoints, books, randomness = stores.endpoints, Books(), random.Random(retries)
    pages = {key: [f"retried-{retries}/{key}/{number}" for number in range(PAGES if key else 1)] for key in range(KEYS)}

    async def retry() -> None:
        client = Client(application.url, books, [], random.Random(randomness.random()))
        while books.counts["answered"] < retries:
            key = client.random.randrange(KEYS)
            path, body = "/page-views", {"views": [{"page": page, "count": 2} for page in pages[key]]}
            if len(pages[key]) == 1:
                path, body = f"/page-views/{pages[key][0]}", {"count": 2}  # type: ignore[dict-item]
            answer = await client.call(path, body, f"retried-{key}")
            if answer is None:
                continue
            books.counts["answered"] += 1
            # The total may be unknown, but never another one.
            assert answer.json() in ({"accepted": 2 * PAGES}, *({"page": pages[key][0], "views": n} for n in (2, None)))
        await client.close()

    async def has(answers: float) -> bool:
        return books.counts["answered"] >= answers

    async with Application.running(
        way.redis_url, way.database_url, {}, app="tests.histories.exactly_once.hurried:app"
    ) as application:
        await fsync(endpoints.redis_url, "always")
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(retry())
            await eventually(lambda: has(retries / 3))
            await application.killed(randomness.choice(application.processes()))
            await eventually(lambda: has(retries / 2))
            await stores.kill_redis(0.1)
            await fsync(endpoints.redis_url, "always")
        await eventually(lambda: carried(endpoints.redis_url))
        found = await stored(endpoints.database_url)
    with capsys.disabled():
        print(f"\n{retries:,} retries of {KEYS} calls: {dict(books.counts)}", end="")
    assert {page: found[page] for each in pages.values() for page in each} == {
        page: 2 for each in pages.values() for page in each
    }
    assert books.wrong == []
