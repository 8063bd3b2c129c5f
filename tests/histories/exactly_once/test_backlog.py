"""Without Postgres the backlog grows to its cap and no further: later views are refused, and told when to come back.
Accepted views are flushed exactly once, and without help, when Postgres is back.
"""

import asyncio
import random
import time
from collections import Counter

import pytest
from redis.asyncio import Redis

from app.embedded import Endpoints
from tests.eventually import eventually
from tests.faults.postgres_wire import PostgresWire
from tests.faults.stores import Stores
from tests.histories.exactly_once.application import Application, Connection
from tests.histories.exactly_once.ends import SHARDS, carried, stored
from tests.histories.exactly_once.pace import paced

pytestmark = pytest.mark.not_on("cluster", because="its `stores` have one Redis")

USUAL = 40.0
"""Calls per second."""
TIMES = 5
ENTRIES, BYTES = 80, 8_000
"""Caps of all four shards. Each shard reaches its share within a second or two."""
CAPS = {"entries": {"FOURWAYS_BACKLOG_ENTRIES": str(ENTRIES)}, "bytes": {"FOURWAYS_BACKLOG_BYTES": str(BYTES)}}
PATIENT = {"FOURWAYS_REDIS_TIMEOUT": "30"}
LARGEST = 200
"""Largest size of an entry in bytes: a few pages, whose views came together."""
GROWN = 32 * 2**20
"""How much a process may grow after the cap is reached, by incidental allocations."""
OUTAGES = [("entries", 3), *(pytest.param(cap, 30, marks=pytest.mark.prove) for cap in CAPS)]


@pytest.mark.parametrize(("cap", "seconds"), OUTAGES)
async def test_at_the_cap_views_are_refused_and_accepted_ones_are_flushed_exactly(
    stores: Stores,
    way: Endpoints,
    postgres_wire: PostgresWire,
    capsys: pytest.CaptureFixture[str],
    cap: str,
    seconds: int,
) -> None:
    endpoints, randomness = stores.endpoints, random.Random(seconds)
    counted, problems, longest, largest = Counter[str](), Counter[str](), 0, 0
    pages = [f"backlog-{cap}-{seconds}/{number}" for number in range(50)]

    async def view(connection: Connection) -> None:
        page, count = randomness.choice(pages), randomness.randint(1, 3)
        answer = await connection.post(f"/page-views/{page}", {"count": count})
        if answer.status == 202:
            counted[page] += count
        else:
            assert (answer.status, answer.headers["retry-after"]) == (503, "1"), answer
            problems[answer.json()["type"]] += 1

    async def is_full() -> bool:
        return problems["backlog-full"] >= 20

    async def has_lasted() -> bool:
        nonlocal longest, largest
        for shard in SHARDS:
            longest = max(longest, await redis.xlen(shard.stream))
            largest = max(largest, int(await redis.get(shard.bytes) or 0))
        await asyncio.sleep(0.1)
        return time.monotonic() - began >= seconds

    async with (
        Application.running(way.redis_url, postgres_wire.url, {**CAPS[cap], **PATIENT}) as application,
        Redis.from_url(endpoints.redis_url) as redis,
    ):

        async def memory() -> list[int]:
            told = await redis.info("memory")
            return [told["used_memory"], *(worker.memory_info().rss for worker in application.processes())]

        async with paced(application.url, USUAL * TIMES, view):
            began = time.monotonic()
            postgres_wire.refuse()
            await eventually(is_full)
            at_the_cap, full_after = await memory(), time.monotonic() - began
            await eventually(has_lasted)
            refused, in_the_end = problems.total(), await memory()
            postgres_wire.heal()
            healed, taken = time.monotonic(), counted.total()
            # It accepts views again while it flushes the pending ones.
            await eventually(lambda: _more(counted, taken + 100))
        drained = await eventually(lambda: carried(endpoints.redis_url))
        took = time.monotonic() - healed
        found = {page: views for page, views in (await stored(endpoints.database_url)).items() if page in counted}
    grown = [after - before for before, after in zip(at_the_cap, in_the_end, strict=True)]
    with capsys.disabled():
        print(
            f"\nPostgres away for {seconds} s, at {USUAL * TIMES:.0f} calls a second and a cap of {CAPS[cap]}: full"
            f" after {full_after:.1f} s; {counted.total():,} views answered, {refused} calls refused meanwhile; at most"
            f" {longest} entries and {largest} bytes in a shard; grown since the cap: Redis {grown[0] / 2**20:.2f} MiB,"
            f" workers {', '.join(f'{each / 2**20:.1f}' for each in grown[1:])} MiB; empty {took:.1f} s after Postgres"
            f" was back, {drained:.1f} s after the last call",
            end="",
        )
    assert found == counted
    assert set(problems) == {"backlog-full"}
    if cap == "entries":
        assert longest <= ENTRIES // len(SHARDS)
    else:
        assert largest <= BYTES // len(SHARDS) + LARGEST
    assert max(grown) < GROWN


async def _more(counted: Counter[str], views: int) -> bool:
    return counted.total() >= views
