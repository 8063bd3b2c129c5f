"""Clocks neither lose nor double a view: not when two processes' clocks differ, and not when Redis' clock steps.

A process keeps a copy of Redis' clock, and names its batches by it. When the clock of Redis' machine steps, copies made
before do not.
"""

import time
from datetime import timedelta

import asyncpg
import pytest
from redis.asyncio import Redis

from app.caching import Flow, RedisClock
from tests.caching.write_behind.views import Views, stored
from tests.eventually import eventually

pytestmark = pytest.mark.usefixtures("ledger")

STEPS = [timedelta(hours=hours) for hours in (2, 25, -2.5, -30, 24 * 365)]


def clock_of(ahead: timedelta) -> RedisClock:
    """Returns a copy of Redis' clock that is `ahead` of it."""
    clock = RedisClock()
    clock.set((time.time() + ahead.total_seconds()) * 1000)
    return clock


async def letters(sql: asyncpg.Connection) -> int:
    """Returns how many views are dead letters."""
    return int(await sql.fetchval("SELECT coalesce(sum(delta), 0) FROM dead_letters"))


@pytest.mark.parametrize("ahead", STEPS, ids=str)
async def test_views_of_two_processes_with_different_clocks_count_once(
    views: Views, redis: Redis, sql: asyncpg.Connection, ahead: timedelta
) -> None:
    """Each process accepts views, and flushes what the other one accepted. Redis loses views both before and after they
    are flushed. Each process looks for them with its receipts: it asks the ledger for the hour of their record."""
    other = views.another(clock_of(ahead))
    for first, second in ((views, other), (other, views)):
        for process in (views, other):
            for _ in range(5):
                await process.counters.add("home", 1)
        await redis.flushall()
        for process in (views, other):
            await process.check()
        await first.carry(first.new_flusher())
        for process in (views, other):
            await process.counters.add("home", 1)
        await second.commit_without_acknowledging()
        await redis.flushall()
        for process in (views, other):
            await process.check()
        await first.carry(first.new_flusher())
    assert (await stored(sql), await letters(sql)) == (24, 0)
    assert await views.total() == await other.total() == 24
    for process in (views, other):
        await process.check()
        assert process.counters.receipts.amount == 0
        assert process.flow[Flow.LOST] == 0


@pytest.mark.parametrize("step", STEPS, ids=str)
async def test_a_step_of_the_clock_of_redis_loses_no_view(
    views: Views, redis: Redis, sql: asyncpg.Connection, step: timedelta
) -> None:
    """A accepts, and B flushes · the clock steps, and A learns of it · the same again · it steps back, and again"""
    clock = clock_of(timedelta(0))
    stepped = views.another(clock)
    for ahead in (timedelta(0), step, timedelta(0)):
        clock.set((time.time() + ahead.total_seconds()) * 1000)
        for _ in range(5):
            await stepped.counters.add("home", 1)
        await redis.flushall()
        await stepped.check()
        await views.carry()
        await redis.flushall()
        await stepped.check()
    await views.carry()
    assert (await stored(sql), await letters(sql)) == (15, 0)
    assert stepped.counters.receipts.amount == 0
    assert (stepped.flow[Flow.RECOVERED], stepped.flow[Flow.LOST]) == (15, 0)


async def test_a_process_learns_that_its_clock_is_below_the_ledger_before_it_accepts_views(
    views: Views, sql: asyncpg.Connection
) -> None:
    """This process only accepts views, and reads nothing."""
    await sql.execute("UPDATE ledger_floor SET hour = date_trunc('hour', now() - interval '25 hours')")
    behind = views.another(clock_of(timedelta(hours=-50)))
    async with behind.counters.recovery.running():

        async def has_learned() -> bool:
            return behind.counters._acceptance._clock.now() > (time.time() - 26 * 3600) * 1000

        await eventually(has_learned)
        await behind.counters.add("home", 5)
    await views.carry()
    assert (await stored(sql), await letters(sql)) == (5, 0)


async def test_a_process_learns_the_floor_of_the_ledger_with_any_read(views: Views, sql: asyncpg.Connection) -> None:
    behind = views.another(clock_of(timedelta(hours=-50)))
    await sql.execute("UPDATE ledger_floor SET hour = date_trunc('hour', now())")
    assert await behind.total() == 0
    await behind.counters.add("home", 5)
    await views.carry()
    assert (await stored(sql), await letters(sql)) == (5, 0)
