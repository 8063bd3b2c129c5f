"""The application is killed while it works. The next one keeps its promises, each exactly once."""

import asyncio
import itertools
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg
import psutil  # type: ignore[import-untyped]
import pytest
from redis.asyncio import Redis

from app.embedded import Endpoints
from tests.eventually import PATIENCE, eventually
from tests.faults.postgres_wire import PostgresWire
from tests.keyed import HUNG_UP, Keyed, keyed, kill
from tests.process_tree import ProcessTree
from tests.service import Service, serving

PATIENT = {"UVICORN_TIMEOUT_KEEP_ALIVE": "120", "FOURWAYS_DATABASE_TIMEOUT": "60", "FOURWAYS_REDIS_TIMEOUT": "30"}
STREAMS = [f"views:{{{shard}}}" for shard in range(4)]
GROUP = "flushers"
FLUSH = r"INSERT INTO applied"
GRACE = 10
PAGES = 8
"""Number of pages of each visitor: they are spread over all shards."""


@dataclass
class Visitor:
    """Posts views of its own pages, one call after the other, and keeps a record of the answers.

    A careful visitor gives each call a key, and retries it until it is answered. A careless one continues with the next
    call, and does not know the outcome of a call without an answer.
    """

    name: str
    many: bool
    careful: bool
    counted: Counter[str] = field(default_factory=Counter)
    doubtful: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    answered: int = 0

    @property
    def pages(self) -> list[str]:
        """The pages that it views."""
        return [f"/{self.name}?page={number}" for number in range(PAGES)]

    async def visit(self, service: Service, enough: Callable[[], bool]) -> None:
        """Posts until `enough` returns True. Reconnects when the connection is lost, until the service is gone."""
        while not enough():
            try:
                connection = await Keyed.to(service.url)
            except ConnectionError:
                return
            try:
                while not enough():
                    await self._post(connection)
            except HUNG_UP:
                continue
            finally:
                await connection.close()

    async def _post(self, connection: Keyed) -> None:
        pages = self.pages if self.many else [self.pages[self.calls % PAGES]]
        key = f"{self.name}-{self.calls}" if self.careful else None
        if not self.careful:
            self.doubtful.update(pages)
            self.calls += 1
        if self.many:
            answer = await connection.post("/page-views", {"views": [{"page": page} for page in pages]}, key=key)
        else:
            answer = await connection.post(f"/page-views/%2F{self.name}%3Fpage={pages[0][-1]}", {}, key=key)
        assert answer.status == 202, answer.body
        self.answered += 1
        self.counted.update(pages)
        if self.careful:
            self.calls += 1
        else:
            self.doubtful.subtract(pages)
        if not self.many and (views := answer.json()["views"]) is not None:
            self.check({pages[0]: views})

    def check(self, views: dict[str, int]) -> None:
        """Fails if one of its pages has fewer views than were acknowledged, or more than were sent."""
        for page, number in views.items():
            most = self.counted[page] + self.doubtful[page]
            assert self.counted[page] <= number <= most, f"{page}: {number} views, not {self.counted[page]} to {most}."


ROUNDS = [(1, 500), *(pytest.param(attempt, 3_000, marks=pytest.mark.prove) for attempt in range(2, 16))]
"""Rounds, each with its number and the number of calls that are answered before the kill. Chance decides which requests
are in flight at the kill, so the long proof kills many times, and later in the run."""
AFTERWARDS = 300
"""Number of calls that are answered after the kill."""


@pytest.fixture
def visitors() -> list[Visitor]:
    """Three of each kind."""
    kinds = itertools.product(range(3), (False, True), (False, True))
    return [
        Visitor(f"{'careful' if careful else 'careless'}-{'many' if many else 'one'}-{number}", many, careful)
        for number, many, careful in kinds
    ]


@pytest.fixture
async def wire(endpoints: Endpoints) -> AsyncIterator[PostgresWire]:
    async with PostgresWire(endpoints.database_url) as wire:
        yield wire


@pytest.mark.parametrize(("attempt", "before"), ROUNDS)
async def test_each_answered_view_is_counted_once_after_the_whole_application_was_killed(
    endpoints: Endpoints,
    visitors: list[Visitor],
    sql: asyncpg.Connection,
    redis: Redis,
    capsys: pytest.CaptureFixture[str],
    attempt: int,
    before: int,
) -> None:
    async with (
        serving(endpoints.redis_url, endpoints.database_url, workers=2, **PATIENT) as service,
        _load(service, visitors),
    ):
        await eventually(lambda: _have(visitors, before))
        await kill(service)
    pending = await _pending(redis)
    # Another process reclaims entries that were pending for ten seconds. tests/real/test_page_views.py really waits.
    await _abandon(redis)
    async with serving(endpoints.redis_url, endpoints.database_url, workers=1, **PATIENT) as service:
        async with _load(service, visitors):
            await eventually(lambda: _have(visitors, before + AFTERWARDS))
        await _check_served(service, visitors)
        took = await eventually(lambda: _is_carried(redis))
        await _check_stored(sql, visitors)
    with capsys.disabled():
        _report("All killed", visitors, pending, took)


@pytest.mark.parametrize(("attempt", "before"), ROUNDS)
async def test_each_answered_view_is_counted_once_after_one_of_three_workers_was_killed(
    endpoints: Endpoints,
    visitors: list[Visitor],
    sql: asyncpg.Connection,
    redis: Redis,
    capsys: pytest.CaptureFixture[str],
    attempt: int,
    before: int,
) -> None:
    async with serving(endpoints.redis_url, endpoints.database_url, workers=3, **PATIENT) as service:
        async with _load(service, visitors):
            await eventually(lambda: _have(visitors, before))
            worker = _busiest(service)
            worker.kill()
            pending = await _pending_of(redis, worker.pid)
            await _abandon(redis, worker.pid)
            await eventually(lambda: _have(visitors, 2 * before))
        took = await eventually(lambda: _is_carried(redis))
        await _check_served(service, visitors)
        await _check_stored(sql, visitors)
    with capsys.disabled():
        _report("One of three killed", visitors, pending, took)


@pytest.mark.parametrize("before", [500, pytest.param(3_000, marks=pytest.mark.prove)])
@pytest.mark.parametrize("processes", [1, 3])
async def test_each_answered_view_is_counted_once_after_sigterm(
    endpoints: Endpoints,
    visitors: list[Visitor],
    sql: asyncpg.Connection,
    redis: Redis,
    capsys: pytest.CaptureFixture[str],
    processes: int,
    before: int,
) -> None:
    grace = {"UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN": str(GRACE)}
    async with (
        serving(endpoints.redis_url, endpoints.database_url, workers=processes, **PATIENT, **grace) as service,
        _load(service, visitors),
    ):
        await eventually(lambda: _have(visitors, before))
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        await service.ended()
        stopping = time.monotonic() - began
    assert await _pending(redis) == 0, "A process that was asked to stop leaves nothing half carried."
    waiting = [await redis.xlen(stream) for stream in STREAMS]
    async with serving(endpoints.redis_url, endpoints.database_url, workers=1, **PATIENT):
        took = await eventually(lambda: _is_carried(redis))
        await _check_stored(sql, visitors)
    with capsys.disabled():
        _report(f"SIGTERM to {processes}, stopped in {stopping:.1f} s, {sum(waiting)} entries left", visitors, 0, took)
    assert stopping < GRACE


async def test_views_whose_flush_was_killed_before_its_commit_are_counted_by_the_next_process(
    endpoints: Endpoints, wire: PostgresWire, sql: asyncpg.Connection, redis: Redis
) -> None:
    async with (
        serving(endpoints.redis_url, wire.url, workers=1, **PATIENT) as service,
        keyed(service, 1) as (connection,),
        wire.holding(FLUSH) as held,
    ):
        assert (await connection.post("/page-views", {"views": [{"page": "home", "count": 3}]})).status == 202
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        await kill(service)
    assert await _pending(redis) == 1
    assert await _stored(sql) == {}
    await _abandon(redis)
    async with serving(endpoints.redis_url, endpoints.database_url, workers=1, **PATIENT) as service:
        await eventually(lambda: _is_carried(redis))
        async with keyed(service, 1) as (connection,):
            assert (await connection.ask("/page-views/home")).json()["views"] == 3
    assert await _stored(sql) == {"home": 3}


async def test_views_whose_flush_was_committed_but_not_acknowledged_are_not_counted_twice(
    endpoints: Endpoints, wire: PostgresWire, sql: asyncpg.Connection, redis: Redis
) -> None:
    async def is_stored() -> bool:
        return await _stored(sql) == {"home": 3}

    async def is_alone() -> bool:
        # A service of other tests uses another database number of this Redis.
        return len([client for client in await redis.client_list() if client["db"] == "0"]) == 1

    async with (
        serving(endpoints.redis_url, wire.url, workers=1, **PATIENT) as service,
        keyed(service, 1) as (connection,),
    ):
        async with wire.holding(FLUSH) as held:
            assert (await connection.post("/page-views", {"views": [{"page": "home", "count": 3}]})).status == 202
            await asyncio.wait_for(held.arrived.wait(), PATIENCE)
            # From here on, Redis executes no writes, so the acknowledgement waits.
            await redis.client_pause(round(PATIENCE * 1000), all=False)
        await eventually(is_stored)
        await kill(service)
        await eventually(is_alone)
        await redis.client_unpause()
    assert await _pending(redis) == 1
    await _abandon(redis)
    async with (
        serving(endpoints.redis_url, endpoints.database_url, workers=1, **PATIENT) as service,
        keyed(service, 1) as (connection,),
    ):
        await eventually(lambda: _is_carried(redis))
        assert (await connection.ask("/page-views/home")).json()["views"] == 3
    assert await _stored(sql) == {"home": 3}


async def test_views_that_another_flusher_reclaimed_from_a_slow_one_are_not_counted_twice(
    endpoints: Endpoints, wire: PostgresWire, sql: asyncpg.Connection, redis: Redis
) -> None:
    views = {"views": [{"page": "home", "count": 3}]}
    async with (
        serving(endpoints.redis_url, wire.url, workers=1, **PATIENT) as service,
        keyed(service, 1) as (connection,),
    ):
        async with wire.holding(FLUSH) as held:
            assert (await connection.post("/page-views", views)).status == 202
            await asyncio.wait_for(held.arrived.wait(), PATIENCE)
            await _abandon(redis)
            async with serving(endpoints.redis_url, endpoints.database_url, workers=1, **PATIENT):
                await eventually(lambda: _is_carried(redis))
            assert await _stored(sql) == {"home": 3}
        # The slow flusher continues. Once it has flushed later views, it is done with the first ones.
        assert (await connection.post("/page-views", views)).status == 202
        await eventually(lambda: _is_carried(redis))
        assert (await connection.ask("/page-views/home")).json()["views"] == 6
    assert await _stored(sql) == {"home": 6}


async def test_fifty_buyers_of_thirty_pieces_get_thirty(endpoints: Endpoints, sql: asyncpg.Connection) -> None:
    # Each buyer that waits for the row holds a connection to Postgres, and many buyers may reach one worker.
    roomy = {"FOURWAYS_DATABASE_CONNECTIONS": "25"}
    async with (
        serving(endpoints.redis_url, endpoints.database_url, workers=3, **PATIENT, **roomy) as service,
        _spread(service, 50) as connections,
    ):
        assert (await connections[0].ask("/inventory/TICKET", method="PUT", body={"quantity": 30})).status == 201
        answers = await asyncio.gather(
            *(buyer.post("/inventory/TICKET/adjustments", {"delta": -1}) for buyer in connections[:50])
        )
        stocks = {(await connection.ask("/inventory/TICKET")).json()["quantity"] for connection in connections}
    assert Counter(answer.status for answer in answers) == {200: 30, 409: 20}
    assert sorted(answer.json()["quantity"] for answer in answers if answer.status == 200) == list(range(30))
    refusals = [answer.json() for answer in answers if answer.status == 409]
    assert all((refusal["available"], refusal["requested"]) == (0, 1) for refusal in refusals)
    assert stocks == {0}
    assert await sql.fetchval("SELECT quantity FROM stock WHERE sku = 'TICKET'") == 0


@asynccontextmanager
async def _load(service: Service, visitors: list[Visitor]) -> AsyncIterator[None]:
    """Lets the visitors post while the block runs, or until the service is gone."""
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for visitor in visitors:
            group.create_task(visitor.visit(service, over.is_set))
        yield
        over.set()


async def _have(visitors: list[Visitor], answers: int) -> bool:
    """Returns whether the visitors got at least that many answers, and each visitor at least one."""
    return sum(visitor.answered for visitor in visitors) >= answers and all(visitor.answered for visitor in visitors)


async def _check_stored(sql: asyncpg.Connection, visitors: list[Visitor]) -> None:
    stored = await _stored(sql)
    for visitor in visitors:
        visitor.check({page: stored.pop(page, 0) for page in visitor.pages})
    assert stored == {}


async def _check_served(service: Service, visitors: list[Visitor]) -> None:
    async with keyed(service, 1) as (connection,):
        for visitor in visitors:
            for number, page in enumerate(visitor.pages):
                answer = await connection.ask(f"/page-views/%2F{visitor.name}%3Fpage={number}")
                assert answer.json()["page"] == page
                visitor.check({page: answer.json()["views"]})


def _report(what: str, visitors: list[Visitor], pending: int, took: float) -> None:
    counted = sum(visitor.counted.total() for visitor in visitors)
    doubtful = sum(visitor.doubtful.total() for visitor in visitors)
    print(
        f"\n{what}: {counted:,} views answered, {doubtful} in doubt, {pending} entries of the dead pending, carried "
        f"{took:.1f} s later"
    )


async def _stored(sql: asyncpg.Connection) -> dict[str, int]:
    return {row["page"]: row["views"] for row in await sql.fetch("SELECT page, views FROM page_views")}


async def _pending(redis: Redis) -> int:
    """Returns how many entries are delivered but not acknowledged."""
    return sum([(await redis.xpending(stream, GROUP))["pending"] for stream in STREAMS])


async def _pending_of(redis: Redis, pid: int) -> int:
    """Returns how many pending entries were delivered to this process."""
    consumers = [each for stream in STREAMS for each in await redis.xinfo_consumers(stream, GROUP)]
    return sum(each["pending"] for each in consumers if b"-%d-" % pid in each["name"])


async def _is_carried(redis: Redis) -> bool:
    """Returns whether no entry waits for the database, and none is pending."""
    waiting = [await redis.xlen(stream) for stream in STREAMS]
    backlog = await redis.exists(*(f"{stream}:backlog" for stream in STREAMS))
    return not any(waiting) and not backlog and await _pending(redis) == 0


async def _abandon(redis: Redis, pid: int | None = None) -> None:
    """Makes the pending entries of this process, or of all, look as if they had been delivered a minute ago, to the
    same consumer."""
    for stream in STREAMS:
        for entry in await redis.xpending_range(stream, GROUP, "-", "+", 1000):
            consumer, id_ = entry["consumer"], entry["message_id"]
            assert isinstance(consumer, bytes)
            if pid is None or b"-%d-" % pid in consumer:
                await redis.xclaim(stream, GROUP, consumer, min_idle_time=0, message_ids=[id_], idle=60_000)


def _workers(service: Service) -> list[psutil.Process]:
    return ProcessTree.of(service.process.pid).workers()


def _busiest(service: Service) -> psutil.Process:
    """Returns the worker with the most connections."""
    return max(_workers(service), key=lambda worker: len(_established(worker, service)))


def _established(worker: psutil.Process, service: Service) -> list[psutil.Process]:
    port = int(service.url.rpartition(":")[2])
    return [
        one for one in worker.net_connections("tcp") if one.laddr.port == port and one.status == psutil.CONN_ESTABLISHED
    ]


@asynccontextmanager
async def _spread(service: Service, least: int) -> AsyncIterator[list[Keyed]]:
    """Yields at least that many open connections. Every worker has some of them."""
    connections: list[Keyed] = []

    async def each_worker_has_one() -> bool:
        connections.append(await Keyed.to(service.url))
        assert (await connections[-1].ask("/health/live")).status == 200
        return len(connections) >= least and all(_established(worker, service) for worker in _workers(service))

    try:
        await eventually(each_worker_has_one)
        yield connections
    finally:
        for connection in connections:
            await connection.close()
