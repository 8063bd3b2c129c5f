"""Ten minutes at four fifths of the machine's capacity: nothing grows that should not, and nothing is lost.

What may grow, and why: Redis keeps the guard of each batch for ten minutes, and an Idempotency-Key for a day.
"""

import asyncio
import random
import statistics
import time
from collections import Counter
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from app.embedded import Endpoints
from tests.eventually import eventually
from tests.faults.stores import Stores
from tests.histories.exactly_once.application import Application, Connection
from tests.histories.exactly_once.ends import SHARDS, carried, psql, stored
from tests.histories.exactly_once.pace import paced

pytestmark = pytest.mark.not_on("cluster", because="its `stores` have one Redis")

SECONDS = 600
MEASURED = 10
"""Seconds for which the machine's capacity is measured."""
SHARE = 0.8
CLIENTS = 24
PAGES = 500
SAMPLE = 5.0
WARM = 60
"""Seconds after which everything has reached its size."""
GROWN = 24 * 2**20
"""How much a worker may grow from then on: far less than a leak of a few bytes per call."""
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'fourways'"
BATCHES = "SELECT count(*) FROM applied"


@dataclass(frozen=True, slots=True)
class Sample:
    """The measurements of one moment."""

    at: float
    workers: int
    redis: int
    clients: int
    sessions: int
    waiting: int


@pytest.mark.prove
@pytest.mark.not_on("sentinel", "pooled", because="the figures are those of the service, and not of what is in between")
@pytest.mark.timeout(SECONDS + 300)
async def test_nothing_grows_in_ten_minutes_of_load(
    stores: Stores, way: Endpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoints, own = stores.endpoints, random.Random(1)
    counted, sent, statuses = Counter[str](), Counter[str](), Counter[str]()
    pages = [f"soak/{number}" for number in range(PAGES)]
    weights = [1 / (rank + 1) for rank in range(PAGES)]
    samples: list[Sample] = []

    async def call(connection: Connection) -> None:
        kind = own.random()
        if kind < 0.4:
            answer = await connection.ask(f"/page-views/{own.choices(pages, weights)[0]}")
            statuses[str(answer.status)] += 1
            return
        views = Counter(dict.fromkeys(own.choices(pages, weights, k=20 if kind < 0.5 else 1), 1))
        key = f"soak-{statuses.total()}-{own.random()}" if kind > 0.9 else None
        sent.update(views)
        if len(views) > 1:
            answer = await connection.post("/page-views", {"views": [{"page": page} for page in views]}, key=key)
        else:
            answer = await connection.post(f"/page-views/{next(iter(views))}", {}, key=key)
        statuses[str(answer.status)] += 1
        if answer.status == 202:
            counted.update(views)

    async def call_again(seconds: float) -> None:
        connection, until = await Connection.to(application.url), time.monotonic() + seconds
        while time.monotonic() < until:
            await call(connection)
        await connection.close()

    async def has_lasted() -> bool:
        await asyncio.sleep(SAMPLE)
        samples.append(
            Sample(
                time.monotonic() - began,
                max(worker.memory_info().rss for worker in application.processes()),
                (await redis.info("memory"))["used_memory"],
                (await redis.info("clients"))["connected_clients"],
                await sql.fetchval(SESSIONS),
                sum([await redis.xlen(shard.stream) for shard in SHARDS]),
            )
        )
        return samples[-1].at >= SECONDS

    async with (
        Application.running(way.redis_url, way.database_url, {}) as application,
        Redis.from_url(endpoints.redis_url) as redis,
        psql(endpoints.database_url) as sql,
    ):
        ledger, entries = await sql.fetchval(BATCHES), await _added(redis)
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(call_again(MEASURED))
        rate = SHARE * statuses.total() / MEASURED
        statuses.clear()
        began = time.monotonic()
        async with paced(application.url, rate, call):
            while not await has_lasted():
                continue
        took = await eventually(lambda: carried(endpoints.redis_url))
        ledger, entries = await sql.fetchval(BATCHES) - ledger, await _added(redis) - entries
        found = {page: views for page, views in (await stored(endpoints.database_url)).items() if page in sent}
        said = await application.told()
    warm = [sample for sample in samples if sample.at >= WARM]
    first, last = warm[: len(warm) // 4], warm[-(len(warm) // 4) :]
    grown = statistics.median(each.workers for each in last) - statistics.median(each.workers for each in first)
    with capsys.disabled():
        print(
            f"\n{SECONDS} s at {rate:.0f} calls a second: {dict(statuses)}, {counted.total():,} views answered in"
            f" {ledger:,} batches; largest worker {last[-1].workers / 2**20:.0f} MiB ({grown / 2**20:+.1f} MiB); Redis"
            f" {first[0].redis / 2**20:.1f} to {last[-1].redis / 2**20:.1f} MiB, {_span(warm, 'clients')} clients;"
            f" Postgres {_span(warm, 'sessions')} sessions; {_span(warm, 'waiting')} entries waited; carried {took:.1f}"
            " s after the last call",
            end="",
        )
    assert all(counted[page] <= found.get(page, 0) <= sent[page] for page in sent)
    assert statuses.total() >= 0.95 * rate * SECONDS, "It did not keep pace."
    assert set(statuses) <= {"200", "202", "503"}
    assert statuses["503"] <= statuses.total() / 100
    assert (said["lost"], said["recovered"], said["dead_letters"]) == (0, 0, 0)
    assert ledger == entries, "One row in the ledger for each entry."
    assert grown < GROWN
    assert max(each.clients for each in warm) <= max(each.clients for each in first) + 3
    assert max(each.sessions for each in warm) <= max(each.sessions for each in first) + 3
    # A flush contains what came within 0.2 s.
    assert statistics.median(each.waiting for each in last) < rate
    assert max(each.waiting for each in warm) < 10 * rate


async def _added(redis: Redis) -> int:
    """Returns how many entries were ever added."""
    return int((await redis.info("commandstats")).get("cmdstat_xadd", {"calls": 0})["calls"])


def _span(samples: list[Sample], name: str) -> str:
    values = [getattr(sample, name) for sample in samples]
    return f"{min(values)} to {max(values)}"
