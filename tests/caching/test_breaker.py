"""When Redis is believed, and how many reads bypass it when it is not."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from app.caching import Breaker, CacheAside, CacheUnavailable, Outcome, Region, moment, open_redis
from app.caching import breaker as breakers
from app.caching.lease import Lease
from app.caching.moment import Moment
from tests.caching.conftest import Source, Thing

OLD, NEW = Thing(name="old", version=1), Thing(name="new", version=2)
NEVER = timedelta(milliseconds=1)
"""A wait that is over at once."""


def long_ago() -> Moment:
    """A moment so long ago that trust from then has ended."""
    return Moment.now().later(-breakers.TRUST - timedelta(seconds=1))


async def test_a_redis_that_no_relay_has_polled_is_not_believed() -> None:
    breaker = Breaker()
    assert breaker.is_open
    assert not breaker.closed
    with pytest.raises(CacheUnavailable, match="it has not been checked yet"):
        await breaker.believed()


async def test_trust_expires_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakers, "NEWS", NEVER)
    breaker = Breaker()
    breaker.close(breaker.losses, Moment.now().later(timedelta(hours=1)))
    assert breaker.closed
    breaker = Breaker()
    breaker.close(breaker.losses, long_ago())
    assert not breaker.closed
    assert not breaker.is_open
    with pytest.raises(CacheUnavailable, match="It is unknown whether Redis has the latest invalidations"):
        await breaker.believed()


async def test_trust_counts_from_the_beginning_of_the_poll() -> None:
    breaker = Breaker()
    breaker.close(breaker.losses, Moment.now().later(timedelta(hours=1)))
    assert breaker.closed
    breaker.close(breaker.losses, long_ago())
    assert not breaker.closed


async def test_trust_expires_although_the_boot_clock_stood_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """B's machine is paused, and its clocks with it       A commits a new row, waits until B's trust has ended, answers
    B's machine resumes, and somebody sets its time of day
    R on B would hit the old value: the other clock has hardly moved
    """
    breaker = Breaker()
    breaker.close(breaker.losses, Moment.now().later(timedelta(hours=1)))
    assert breaker.closed
    monkeypatch.setattr(moment, "wall", lambda: time.time() + 7200)
    assert not breaker.closed


async def test_setting_the_wall_clock_back_does_not_prolong_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    breaker = Breaker()
    breaker.close(breaker.losses, long_ago())
    monkeypatch.setattr(moment, "wall", lambda: time.time() - 7200)
    assert not breaker.closed


async def test_trust_renewed_without_the_database_is_not_verified() -> None:
    breaker = Breaker()
    breaker.close(breaker.losses, moment.NEVER)
    assert breaker.verified
    breaker.renew(moment.NEVER)
    assert (breaker.closed, breaker.verified) == (True, False)
    breaker.close(breaker.losses, moment.NEVER)
    assert breaker.verified


async def test_a_failed_poll_does_not_shorten_trust_that_was_renewed_meanwhile() -> None:
    """A poll begins, and Postgres is silent · meanwhile Redis is found to answer, again and again · the poll fails"""
    breaker = Breaker()
    breaker.close(breaker.losses, long_ago())
    breaker.renew(moment.NEVER)
    breaker.renew(long_ago())
    assert breaker.closed


async def test_a_reader_that_finds_trust_lapsed_continues_when_trust_is_renewed() -> None:
    breaker = Breaker()
    breaker.close(breaker.losses, long_ago())
    readers = [asyncio.create_task(breaker.believed()) for _ in range(3)]
    await asyncio.wait(readers, timeout=0)
    assert not any(reader.done() for reader in readers)
    breaker.renew(moment.NEVER)
    await asyncio.gather(*readers)


async def test_a_reader_that_waits_for_news_fails_as_soon_as_the_breaker_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakers, "NEWS", timedelta(hours=1))
    breaker = Breaker()
    breaker.close(breaker.losses, long_ago())
    reader = asyncio.create_task(breaker.believed())
    await asyncio.wait({reader}, timeout=0)
    breaker.open("it does not answer")
    with pytest.raises(CacheUnavailable, match="Redis is not asked: it does not answer"):
        await reader


async def test_news_of_trust_that_has_already_ended_does_not_restore_belief(monkeypatch: pytest.MonkeyPatch) -> None:
    """R finds trust lapsed, and waits
    the relay ends a poll that began longer than TRUST ago
    """
    monkeypatch.setattr(breakers, "NEWS", timedelta(milliseconds=50))
    breaker = Breaker()
    breaker.close(breaker.losses, long_ago())
    reader = asyncio.create_task(breaker.believed())
    await asyncio.wait({reader}, timeout=0)
    breaker.close(breaker.losses, long_ago())
    assert not breaker.closed
    with pytest.raises(CacheUnavailable):
        await reader


async def test_a_poll_begun_before_trust_was_lost_does_not_restore_it() -> None:
    """The relay begins its poll · Redis restarts, and a connection detects it · the relay ends its poll"""
    breaker = Breaker()
    breaker.close(breaker.losses, moment.NEVER)
    losses = breaker.losses
    breaker.open("it has restarted")
    breaker.close(losses, moment.NEVER)
    assert breaker.is_open
    breaker.renew(moment.NEVER)
    assert breaker.is_open, "Trust can go on, and not begin."
    breaker.close(breaker.losses, moment.NEVER)
    assert breaker.closed


async def test_three_failures_in_a_row_open_the_breaker_and_error_answers_are_no_failures(
    breaker: Breaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breakers, "FAILING", timedelta(0))
    for _ in range(2):
        breaker.failed(TimeoutError())
    breaker.answered()
    for _ in range(2):
        breaker.failed(TimeoutError())
    for _ in range(9):
        breaker.failed(ResponseError("OOM command not allowed"))
    assert breaker.closed
    breaker.failed(TimeoutError())
    assert breaker.is_open
    assert not breaker.reachable


async def test_another_run_of_redis_opens_the_breaker_before_a_command_is_sent(breaker: Breaker) -> None:
    breaker.run = None
    breaker.meet("first")
    breaker.meet("first")
    assert breaker.closed
    with pytest.raises(RedisConnectionError, match="Redis has restarted or was replaced"):
        breaker.meet("second")
    assert breaker.is_open
    assert breaker.reachable, "It may be told, before it is believed."
    breaker.meet("second")


async def test_changed_is_called_only_when_the_breaker_opens_and_when_it_closes() -> None:
    said: list[bool] = []
    breaker = Breaker(changed=said.append)
    breaker.open("it does not answer")
    for _ in range(3):
        breaker.close(breaker.losses, moment.NEVER)
    for _ in range(3):
        breaker.open("it does not answer")
    assert said == [False, True]


async def test_an_unanswered_ping_opens_the_breaker(breaker: Breaker, redis: Redis) -> None:
    async with open_redis("unix:///nowhere/redis.sock", timeout=timedelta(seconds=1), connections=1) as nowhere:
        with pytest.raises(CacheUnavailable, match="Redis did not answer: it refuses connections"):
            await breaker.probe(nowhere, nowhere.ping)
    assert breaker.is_open
    assert not breaker.reachable
    await breaker.probe(redis, redis.ping)
    assert breaker.reachable
    assert breaker.is_open, "That it answers does not say what it knows."


async def test_an_answer_to_a_command_sent_before_trust_was_lost_is_not_believed(
    region: Region[int, Thing], breaker: Breaker, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R asks on a connection to the Redis that has restarted · another connection detects it · R's answer arrives"""
    lease = await region.lookup(1)
    assert isinstance(lease, Lease)
    await region.fill(1, lease.token, OLD)
    asked, answer = asyncio.Event(), asyncio.Event()
    ask: Callable[..., Awaitable[object]] = redis.execute_command

    async def slow(*words: str) -> object:
        raw = await ask(*words)
        asked.set()
        await answer.wait()
        return raw

    monkeypatch.setattr(redis, "execute_command", slow)
    reader = asyncio.ensure_future(region.find(1))
    await asked.wait()
    breaker.open("it has restarted")
    breaker.close(breaker.losses, moment.NEVER)
    answer.set()
    with pytest.raises(CacheUnavailable, match="Redis is not believed for things: it has restarted"):
        await reader


async def test_a_hot_key_costs_one_query_per_turn(breaker: Breaker, region: Region[int, Thing], source: Source) -> None:
    """Redis is not asked, and there are four turns: 500 readers come at once, and 500 more each time that a query
    begins."""
    breaker.open("it does not answer")
    source.rows[1] = OLD
    source.hold()
    cache = CacheAside(region)
    readers = []
    for _ in range(4):
        source.read.clear()
        readers += [asyncio.create_task(cache.get(1, source.get)) for _ in range(500)]
        await source.read.wait()
    source.read.clear()
    readers += [asyncio.create_task(cache.get(1, source.get)) for _ in range(500)]
    await asyncio.wait(readers[-500:], timeout=0)
    assert source.asked == {1: 4}
    source.open.set()
    assert {(await reader).outcome for reader in readers} == {Outcome.BYPASSED}
    assert source.asked == {1: 5}


async def test_a_reader_that_bypasses_the_cache_does_not_join_a_query_that_has_begun(
    breaker: Breaker, region: Region[int, Thing], source: Source
) -> None:
    """Redis is not asked:

    R1 reads the old row, and stalls
                                        W commits the new row, and answers
                                        R2 must not get what R1 read
    """
    breaker.open("it does not answer")
    cache = CacheAside(region)
    source.rows[1] = OLD
    source.hold()
    first = asyncio.create_task(cache.get(1, source.get))
    await source.read.wait()
    source.rows[1] = NEW
    source.read.clear()
    second = asyncio.create_task(cache.get(1, source.get))
    await source.read.wait()
    source.open.set()
    assert (await first).value == OLD
    assert (await second).value == NEW
    assert source.asked == {1: 2}


async def test_a_reader_that_bypasses_the_cache_joins_a_query_that_waits_for_its_turn(
    breaker: Breaker, region: Region[int, Thing], source: Source
) -> None:
    """Redis is not asked, and all turns are taken:

    R1 waits for a turn
                                        W commits the new row, and answers
                                        R2 joins R1: their query begins after the commit
    """
    breaker.open("it does not answer")
    cache = CacheAside(region)
    source.rows |= dict.fromkeys(range(1, 6), OLD)
    source.hold()
    others = [asyncio.create_task(cache.get(key, source.get)) for key in range(2, 6)]
    await asyncio.wait(others, timeout=0)
    first = asyncio.create_task(cache.get(1, source.get))
    await asyncio.wait({first}, timeout=0)
    source.rows[1] = NEW
    second = asyncio.create_task(cache.get(1, source.get))
    await asyncio.wait({second}, timeout=0)
    assert source.asked[1] == 0
    source.open.set()
    assert [(await first).value, (await second).value] == [NEW, NEW]
    assert source.asked == dict.fromkeys(range(1, 6), 1)
    await asyncio.gather(*others)
