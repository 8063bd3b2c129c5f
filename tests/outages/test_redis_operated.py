"""Operators work on a Redis in use: they flush it, make it forget its scripts, end its connections, fill its memory,
and set it to lose data."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import asyncpg
import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from app.embedded import Endpoints
from app.settings import Settings
from tests.eventually import PATIENCE, eventually
from tests.in_process import application
from tests.outages.instance import Instance, Pair, fresh_stores, is_carried, running, two_running
from tests.outages.load import LONGEST, Load
from tests.outages.rows import Rows, made
from tests.topologies.by_hand import each_by_hand
from tests.topologies.ways import Ways

TIMES = 20
OPERATIONS: Mapping[str, Callable[[Redis], Awaitable[object]]] = {
    "FLUSHALL": lambda redis: redis.flushall(),
    "SCRIPT FLUSH": lambda redis: redis.script_flush(),
    "CLIENT KILL": lambda redis: redis.client_kill_filter(_type="normal"),
}


@pytest.fixture(scope="module")
async def stores(servers: Endpoints, ways: Ways) -> AsyncIterator[Endpoints]:
    """A separate Redis with its own database: these operations affect all that use it."""
    async with ways.another_redis() as redis_url, fresh_stores(servers, 4) as stores:
        yield Endpoints(redis_url, stores.database_url)


@pytest.fixture(scope="module")
async def instances(stores: Endpoints, ways: Ways) -> AsyncIterator[Pair]:
    async with two_running(stores, ways, wired=False) as pair:
        yield pair


@pytest.fixture
async def redises(stores: Endpoints) -> AsyncIterator[list[Redis]]:
    """An operator's connection to each Redis, as with redis-cli."""
    async with each_by_hand(stores.redis_url) as redises:
        yield redises


async def operated(redises: list[Redis], operate: Callable[[Redis], Awaitable[object]]) -> None:
    """Does this to each Redis."""
    for redis in redises:
        await operate(redis)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_no_request_between_two_operations_fails(pair: Pair, redises: list[Redis], operation: str) -> None:
    rows = await made(pair[0].connection, f"between-{operation.replace(' ', '-')}", 1)
    for number in range(TIMES):
        await operated(redises, OPERATIONS[operation])
        for method, path, body in _requests(rows):
            answer = await pair[number % 2].connection.ask(path, method=method, body=body)
            assert answer.status in (200, 202), (method, path, answer.body)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_operations_under_load_fail_no_request_that_can_be_saved(
    pair: Pair, redises: list[Redis], sql: asyncpg.Connection, capsys: pytest.CaptureFixture[str], operation: str
) -> None:
    rows = await made(pair[0].connection, f"under-{operation.replace(' ', '-')}")
    # On a busy machine, more would be refused (503) while the breaker is open.
    load = Load([instance.service for instance in pair], rows, rate=50)
    async with load.running():
        for _ in range(TIMES):
            await load.hears(6)
            await operated(redises, OPERATIONS[operation])
        await load.hears(6)
    for heard in load.heard:
        if operation == "CLIENT KILL" and heard.kind in ("write inventory", "view"):
            # A command may be in flight when its connection ends, and nobody knows whether Redis executed it.
            assert (heard.status, heard.problem) in ((200, ""), (202, ""), (503, "cache-unavailable")), heard
        else:
            assert heard.status in (200, 202), heard
    assert max(heard.took for heard in load.heard) < LONGEST
    if operation != "FLUSHALL":  # It loses the pending views.
        await eventually(lambda: is_carried(pair[0]))
        await load.check(sql)
    with capsys.disabled():
        print(load.report(f"{operation} {TIMES} times under load", load.heard))


async def test_a_script_forgotten_again_while_it_is_reloaded_fails_no_write(
    stores: Endpoints, ways: Ways, redises: list[Redis]
) -> None:
    """W finds that Redis does not know a script, and sends it
                                        somebody makes Redis forget its scripts again
    W runs the script by its digest
    """
    async with running(stores, ways) as instance:
        (path,) = (await made(instance.connection, "twice", 1)).stocks
        await operated(redises, Redis.script_flush)
        async with instance.redis.holding_replies(r"(?s)^SCRIPT LOAD .*takes over its lease") as held:
            writing = asyncio.create_task(instance.connection.post(f"{path}/adjustments", {"delta": -1}))
            await asyncio.wait_for(held.arrived.wait(), PATIENCE)
            await operated(redises, Redis.script_flush)
            held.release()
            answer = await asyncio.wait_for(writing, PATIENCE)
    assert answer.status == 200, answer.body


async def test_views_are_counted_again_right_after_redis_was_flushed(
    pair: Pair, redises: list[Redis], sql: asyncpg.Connection
) -> None:
    rows = await made(pair[0].connection, "flushed", 1)
    for instance in pair:
        assert (await instance.connection.post(rows.page, {"count": 1})).status == 202
        await eventually(lambda: is_carried(pair[0]))
        await operated(redises, Redis.flushall)
    for instance in pair:
        answer = await instance.connection.post(rows.page, {"count": 5})
        assert answer.status == 202, answer
    await eventually(lambda: is_carried(pair[0]))
    assert await sql.fetchval("SELECT views FROM page_views WHERE page = 'flushed'") == 12
    for instance in pair:
        assert (await instance.connection.ask(rows.page)).json()["views"] == 12


@pytest.mark.parametrize(
    ("setting", "wrong", "part", "loss"),
    [
        ("maxmemory-policy", "allkeys-lru", "eviction", "accepted writes vanish"),
        ("appendonly", "no", "persistence", "accepted writes are lost"),
    ],
)
async def test_a_redis_that_may_lose_views_is_reported_from_the_start(
    pair: Pair, stores: Endpoints, ways: Ways, redises: list[Redis], setting: str, wrong: str, part: str, loss: str
) -> None:
    right = str((await redises[0].config_get(setting))[setting])
    await operated(redises, lambda redis: redis.config_set(setting, wrong))
    try:
        named = await ways.named(stores)
        settings = Settings(_env_file=None, redis_url=named.redis_url, database_url=named.database_url)
        async with application(settings) as client:
            started = await client.get("/health/ready")
        answers = [(started.status_code, started.json()), *[await instance.readiness() for instance in pair]]
    finally:
        await operated(redises, lambda redis: redis.config_set(setting, right))
    for status, said in answers:
        assert (status, said["status"]) == (200, "degraded")
        assert said["parts"][part].startswith(f"{setting} is ")
        assert loss in said["parts"][part]


async def test_a_redis_with_full_memory_fails_only_what_must_be_stored_in_it(
    pair: Pair, redises: list[Redis], sql: asyncpg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, others = await made(pair[0].connection, "full"), await made(pair[0].connection, "full-too", 1)
    load = Load([instance.service for instance in pair], rows, rate=100)
    async with load.running():
        await load.hears(50)
        # Redis already uses more than that. It evicts nothing, and refuses what needs more.
        await operated(redises, lambda redis: redis.config_set("maxmemory", "1mb"))
        try:
            with pytest.raises(ResponseError, match="maxmemory"):
                await redises[0].set("full", "1")
            began = time.monotonic()
            await load.hears(150)
            ended = time.monotonic()
        finally:
            await operated(redises, lambda redis: redis.config_set("maxmemory", "0"))
        freed = time.monotonic()
        for instance in pair:
            await eventually(lambda: _takes_all(instance, others))  # noqa: B023  # It is awaited here.
        took = time.monotonic() - freed
        await load.hears(50)
    full = load.within(began, ended)
    for heard in full:
        if heard.kind == "view":
            assert (heard.status, heard.problem) == (503, "cache-unavailable"), heard
        elif heard.kind == "write inventory":
            # It needs no more memory than it frees, if there was a value before.
            assert (heard.status, heard.problem) in ((200, ""), (503, "cache-unavailable")), heard
        else:
            assert heard.status == 200, heard
    assert max(heard.took for heard in load.heard) < LONGEST
    await eventually(lambda: is_carried(pair[0]))
    await load.check(sql)
    with capsys.disabled():
        print(load.report(f"Redis full for {ended - began:.1f} s, all is taken {took:.2f} s after", full))


def _requests(rows: Rows) -> list[tuple[str, str, object]]:
    """Returns one request of each kind: method, path, body."""
    user, product, stock = rows.one_of_each
    return [
        ("GET", user, None),
        ("GET", product, None),
        ("GET", stock, None),
        ("GET", rows.page, None),
        ("PATCH", user, {"name": "New"}),
        ("PATCH", product, {"name": "New"}),
        ("POST", f"{stock}/adjustments", {"delta": -1}),
        ("POST", rows.page, {"count": 1}),
    ]


async def _answered(instance: Instance, method: str, path: str, body: object) -> int:
    return (await instance.connection.ask(path, method=method, body=body)).status


async def _takes_all(instance: Instance, rows: Rows) -> bool:
    statuses = [await _answered(instance, *request) for request in _requests(rows)]
    return set(statuses) <= {200, 202}
