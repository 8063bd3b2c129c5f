"""The checker rejects what is not linearizable: write-through without lock, lease and revocation."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta

import asyncpg
import pytest
from redis.asyncio import Redis

from app.caching import open_redis
from app.embedded import Endpoints
from tests.eventually import PATIENCE, eventually
from tests.faults.redis_wire import RedisWire
from tests.histories.linearizability.checker import Verdict, check, explain
from tests.histories.linearizability.client import KINDS, Client
from tests.histories.linearizability.concurrent_write_through import ConcurrentWriteThrough
from tests.histories.linearizability.operation import Kind
from tests.histories.linearizability.recorder import Recorder

MOST = 200
SECONDS = 10.0


@pytest.fixture
async def pool(endpoints: Endpoints) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(endpoints.database_url, min_size=8, max_size=8) as pool:
        yield pool


@pytest.fixture
def target(redis: Redis, pool: asyncpg.Pool) -> ConcurrentWriteThrough:
    return ConcurrentWriteThrough(redis, pool)


@pytest.fixture
async def wire(endpoints: Endpoints) -> AsyncIterator[RedisWire]:
    async with RedisWire(endpoints.redis_url) as wire:
        yield wire


@pytest.fixture
async def slow(wire: RedisWire, pool: asyncpg.Pool) -> AsyncIterator[ConcurrentWriteThrough]:
    """Another process, whose connection to Redis can be held up."""
    async with open_redis(wire.url, timeout=timedelta(seconds=PATIENCE), connections=4) as redis:
        yield ConcurrentWriteThrough(redis, pool)


async def test_a_reader_that_brings_an_old_row_back_is_detected(
    target: ConcurrentWriteThrough, slow: ConcurrentWriteThrough, wire: RedisWire, redis: Redis
) -> None:
    """R misses, SELECTs 30, and stalls · W sets 29 in both stores, and is answered · R SETs 30 · R2 reads 30."""
    recorder = Recorder()
    await recorder.record(target, "W", "A", Kind.PUT, 30)
    await redis.flushdb()
    async with wire.holding("^SET naive:") as held:
        stalled = asyncio.create_task(recorder.record(slow, "R", "A", Kind.READ))
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        await recorder.record(target, "W", "A", Kind.PUT, 29)
    await stalled
    assert check(recorder.histories["A"], seconds=SECONDS) is Verdict.LINEARIZABLE
    await recorder.record(target, "R2", "A", Kind.READ)
    assert check(recorder.histories["A"], seconds=SECONDS) is Verdict.NOT_LINEARIZABLE


async def test_two_writes_that_the_stores_apply_in_different_orders_are_detected(
    target: ConcurrentWriteThrough, slow: ConcurrentWriteThrough, wire: RedisWire, redis: Redis, sql: asyncpg.Connection
) -> None:
    """W1 UPDATEs to 10, and its SET stalls · W2 sets 20 in both stores · W1 SETs 10 · R reads 10, and later 20."""
    recorder = Recorder()
    await recorder.record(target, "W2", "A", Kind.PUT, 30)

    async def is_10_in_postgres() -> bool:
        return bool(await sql.fetchval("SELECT quantity FROM stock WHERE sku = 'A'") == 10)

    async with wire.holding("^SET naive:"):
        stalled = asyncio.create_task(recorder.record(slow, "W1", "A", Kind.PUT, 10))
        await eventually(is_10_in_postgres)
        await recorder.record(target, "W2", "A", Kind.PUT, 20)
    await stalled
    await recorder.record(target, "R", "A", Kind.READ)
    assert check(recorder.histories["A"], seconds=SECONDS) is Verdict.LINEARIZABLE
    await redis.flushdb()  # The entry expires.
    await recorder.record(target, "R", "A", Kind.READ)
    assert check(recorder.histories["A"], seconds=SECONDS) is Verdict.NOT_LINEARIZABLE


@pytest.mark.parametrize("kinds", [{Kind.READ: 80, Kind.PUT: 20}, KINDS], ids=["reads and settings", "all calls"])
async def test_random_calls_reveal_concurrent_write_through_too(
    redis: Redis, pool: asyncpg.Pool, capsys: pytest.CaptureFixture[str], kinds: Mapping[Kind, int]
) -> None:
    target = ConcurrentWriteThrough(redis, pool, ttl=timedelta(milliseconds=20))
    recorder, sku, seed = Recorder(), "", 0
    for seed in range(MOST):
        randomness, recorder, sku = random.Random(seed), Recorder(), f"S{seed}"
        clients = [
            Client(f"c{number}", target, recorder, random.Random(randomness.random()), kinds=kinds)
            for number in range(8)
        ]
        for _ in range(6):
            await asyncio.gather(*(client.call([sku], beat=0.01) for client in clients))
        if check(recorder.histories[sku], seconds=SECONDS) is Verdict.NOT_LINEARIZABLE:
            break
    with capsys.disabled():
        print(f"\nConcurrent write-through: history {seed + 1} of those without any fault is not linearizable.", end="")
    assert ">>>" in explain(recorder.histories[sku], seconds=SECONDS)
