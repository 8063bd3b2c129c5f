"""FLUSHALL in the middle: accepted views are counted once nonetheless, because the processes that accepted them have
receipts. Views without receipts are counted as lost. The service recovers by itself.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from app.caching.write_behind.shard import GROUP, number
from app.embedded import Endpoints
from tests.eventually import PATIENCE, eventually
from tests.faults.postgres_wire import PostgresWire
from tests.faults.redis_wire import RedisWire
from tests.faults.stores import Stores
from tests.histories.exactly_once.application import Application, Connection
from tests.histories.exactly_once.books import Books
from tests.histories.exactly_once.crowd import enough, settled, visiting
from tests.histories.exactly_once.ends import SHARDS, carried, stored

pytestmark = pytest.mark.not_on("cluster", because="its `stores` have one Redis")

HURRIED = "tests.histories.exactly_once.hurried:app"
FORGETFUL = "tests.histories.exactly_once.forgetful:app"
SLOW = {"FOURWAYS_FLUSH_INTERVAL": "1", "FOURWAYS_FLUSH_VIEWS": "1000000"}
"""With these settings, some views are pending at nearly any moment."""
SINGLY = {"FOURWAYS_FLUSH_VIEWS": "1"}
"""With this setting, a flusher that holds an entry reads no more."""
TIMES = [1, pytest.param(30, marks=pytest.mark.prove)]


@pytest.mark.parametrize("times", TIMES)
async def test_views_that_a_flushall_removes_are_counted_once(
    stores: Stores, way: Endpoints, capsys: pytest.CaptureFixture[str], times: int
) -> None:
    randomness, books = random.Random(times), Books()
    endpoints = stores.endpoints
    async with Application.running(way.redis_url, way.database_url, SLOW, app=HURRIED) as application:
        async with (
            visiting(f"flushed-{times}", application, endpoints, books, randomness),
            Redis.from_url(endpoints.redis_url) as redis,
        ):
            for _ in range(times):
                more = books.counted.total() + 1000
                await eventually(lambda more=more: enough(books, more))  # type: ignore[misc]
                with books.loss():
                    await redis.flushall()
            await eventually(lambda: enough(books, more + 1000))
        took, found = await settled(application, endpoints, books)
        said = await application.told()
    with capsys.disabled():
        print(
            f"\nFLUSHALL {times} times: {books.counted.total():,} views answered, {said['recovered']} taken on again,"
            f" {said['lost']} lost; {dict(books.counts)}; whole {books.whole_after:.1f} s after a loss; settled"
            f" {took:.1f} s later",
            end="",
        )
    assert books.wrong == []
    assert books.check(found) == []
    assert said["lost"] == 0


async def test_recovered_reports_how_much_a_flushall_has_removed(
    stores: Stores, way: Endpoints, postgres_wire: PostgresWire
) -> None:
    endpoints = stores.endpoints
    async with (
        _stopped_short(stores, way, postgres_wire, "recovered", HURRIED, workers=2) as (application, connection),
        Redis.from_url(endpoints.redis_url) as redis,
    ):
        for each in range(100):
            answer = await connection.post(f"/page-views/recovered/{each}", {"count": 7})
            assert answer.status == 202
        await redis.flushall()
        postgres_wire.heal()
        await eventually(lambda: _is_carried(stores, 700, "recovered/"))
        # Redis also lost what the flushers held, and that may have been counted before anybody noticed.
        said = await application.told()
        assert 700 <= said["recovered"] <= 700 + await _plugs(stores, "recovered")
        assert said["lost"] == 0


async def test_views_without_receipts_are_counted_as_lost(
    stores: Stores, way: Endpoints, postgres_wire: PostgresWire
) -> None:
    endpoints = stores.endpoints
    async with (
        _stopped_short(stores, way, postgres_wire, "lost", FORGETFUL, workers=1) as (application, connection),
        Redis.from_url(endpoints.redis_url) as redis,
    ):
        for each in range(100):
            answer = await connection.post(f"/page-views/lost/{each}", {"count": 7})
            assert answer.status == 202
        await redis.flushall()
        postgres_wire.heal()

        async def is_noticed() -> bool:
            return bool((await application.told())["lost"] >= 700)

        # Meanwhile it works, and tells what Postgres has.
        assert (await connection.post("/page-views/lost/0", {})).status == 202
        await eventually(lambda: _is_carried(stores, 1, "lost/"))
        assert (await connection.ask("/page-views/lost/0")).json()["views"] == 1
        await eventually(is_noticed)
        said = await application.told()
        assert (said["recovered"], said["lost"]) == (0, 700)


async def test_a_view_that_was_answered_only_when_repeated_is_counted(
    stores: Stores, redis_wire: RedisWire, postgres_wire: PostgresWire
) -> None:
    """The process that accepted it got no answer, and so has no receipt. The repeated call found its key."""
    *_, page, witness = _pages_of_one_shard("unanswered")
    endpoints, wired = stores.endpoints, Endpoints(redis_wire.url, postgres_wire.url)
    async with (
        _stopped_short(stores, wired, postgres_wire, "unanswered", HURRIED, workers=1) as (_, one),
        Redis.from_url(endpoints.redis_url) as redis,
    ):
        losses = [redis_wire.cut_after(f"^ACCEPT .*{page}") for _ in range(3)]
        statuses = [(await one.post(f"/page-views/{page}", {}, key="once")).status for _ in range(2)]
        assert all(lost.dropped.is_set() for lost in losses)
        assert statuses == [503, 202]
        assert (await one.post(f"/page-views/{witness}", {})).status == 202
        await redis.flushall()
        postgres_wire.heal()
        assert await _counted_up_to(stores, witness) == {page: 1, witness: 1}


@pytest.mark.prove
async def test_views_with_keys_are_counted_although_their_entries_were_removed(
    stores: Stores, way: Endpoints, postgres_wire: PostgresWire
) -> None:
    """Entries that were removed from the stream by hand are accepted again: the keys found in Redis are their own."""
    *pages, witness = _pages_of_one_shard("removed")
    async with (
        _stopped_short(stores, way, postgres_wire, "removed", HURRIED, workers=1) as (_, one),
        Redis.from_url(stores.endpoints.redis_url) as redis,
    ):
        for page in pages:
            assert (await one.post(f"/page-views/{page}", {}, key="once")).status == 202
        assert (await one.post(f"/page-views/{witness}", {})).status == 202
        await redis.delete(*(shard.stream for shard in SHARDS))
        postgres_wire.heal()
        assert await _counted_up_to(stores, witness) == dict.fromkeys([*pages, witness], 1)


async def test_a_view_whose_answer_was_lost_before_a_flushall_is_in_the_total_once(
    stores: Stores, way: Endpoints, redis_wire: RedisWire
) -> None:
    """The view was accepted and flushed; Redis forgot that; a total was built; the repetition was accepted again."""
    endpoints, path = stores.endpoints, "/page-views/doubled"

    async def is_stored() -> bool:
        return (await stored(endpoints.database_url)).get("doubled") == 1

    async with (
        Application.running(
            redis_wire.url, way.database_url, {"FOURWAYS_REDIS_TIMEOUT": "5"}, app=HURRIED, workers=1
        ) as application,
        Redis.from_url(endpoints.redis_url) as redis,
    ):
        one, other = await Connection.to(application.url), await Connection.to(application.url)
        lost = redis_wire.drop_reply("^ACCEPT .*doubled")
        view = asyncio.create_task(one.post(path, {}))
        await asyncio.wait_for(lost.dropped.wait(), PATIENCE)
        await eventually(is_stored)
        await redis.flushall()
        assert (await other.ask(path)).json()["views"] == 1
        assert (await view).status == 202
        await eventually(lambda: carried(endpoints.redis_url))
        told, found = (await other.ask(path)).json()["views"], await stored(endpoints.database_url)
        await one.close()
        await other.close()
    assert (told, found["doubled"]) == (1, 1)


@asynccontextmanager
async def _stopped_short(
    stores: Stores, way: Endpoints, postgres: PostgresWire, name: str, app: str, *, workers: int
) -> AsyncIterator[tuple[Application, Connection]]:
    """Runs an application without Postgres, each of whose flushers holds views, and so reads no others."""
    async with (
        Application.running(way.redis_url, postgres.url, SINGLY, app=app, workers=workers) as application,
        Redis.from_url(stores.endpoints.redis_url) as redis,
    ):
        # A flusher that began ten seconds later would take over what another one holds, which reads no more.
        async with application.each() as connections:
            await eventually(lambda: _are_ready(connections))
        connection = await Connection.to(application.url)
        postgres.refuse()

        async def all_have_some() -> bool:
            assert (await connection.post(f"/page-views/{name}-plug", {})).status == 202
            holders = [one for shard in SHARDS for one in await redis.xinfo_consumers(shard.stream, GROUP)]
            names = [one["name"] for one in holders if one["pending"]]
            return all(any(b"-%d-" % each.pid in name for name in names) for each in application.processes())

        try:
            await eventually(all_have_some)
            yield application, connection
        finally:
            postgres.heal()
            await connection.close()


async def _are_ready(connections: Sequence[Connection]) -> bool:
    return all([(await one.ask("/health/ready")).json()["status"] == "ready" for one in connections])


async def _is_carried(stores: Stores, views: int, begins: str) -> bool:
    """Whether these pages have `views` views, and nothing is pending."""
    found = await stored(stores.endpoints.database_url)
    total = sum(views for page, views in found.items() if page.startswith(begins))
    assert total <= views, found
    return total == views and await carried(stores.endpoints.redis_url)


async def _plugs(stores: Stores, name: str) -> int:
    return (await stored(stores.endpoints.database_url))[f"{name}-plug"]


def _pages_of_one_shard(name: str) -> list[str]:
    """Returns pages of one shard: they are flushed in the order in which they were accepted."""
    return [page for page in (f"{name}/{each}" for each in range(60)) if number(page) == 0]


async def _counted_up_to(stores: Stores, witness: str) -> dict[str, int]:
    """Returns the views of the same test's pages once the last one is counted: what is missing then will never come."""
    found: dict[str, int] = {}

    async def is_counted() -> bool:
        nonlocal found
        found = await stored(stores.endpoints.database_url)
        return witness in found and await carried(stores.endpoints.redis_url)

    await eventually(is_counted)
    name = witness.partition("/")[0]
    return {page: views for page, views in found.items() if page.startswith(f"{name}/")}
