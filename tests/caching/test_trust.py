"""When Redis is believed, and for how long."""

import asyncio
import time
from datetime import timedelta

import pytest

from app.caching import CacheUnavailable, Trust, moment
from app.caching import trust as leases
from app.caching.moment import Moment

NEVER = timedelta(milliseconds=1)
"""A wait that is over at once."""


def long_ago() -> Moment:
    """A moment so long ago that trust from then has ended."""
    return Moment.now().later(-leases.TRUST - timedelta(seconds=1))


async def test_a_redis_that_no_relay_has_polled_is_not_believed() -> None:
    trust = Trust()
    assert trust.lost
    assert not trust.held
    with pytest.raises(CacheUnavailable, match="it has not been checked yet"):
        await trust.believed()


async def test_trust_expires_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "NEWS", NEVER)
    trust = Trust()
    trust.grant(trust.losses, Moment.now().later(timedelta(hours=1)))
    assert trust.held
    trust = Trust()
    trust.grant(trust.losses, long_ago())
    assert not trust.held
    assert not trust.lost
    with pytest.raises(CacheUnavailable, match="It is unknown whether Redis has the latest invalidations"):
        await trust.believed()


async def test_trust_counts_from_the_beginning_of_the_poll() -> None:
    trust = Trust()
    trust.grant(trust.losses, Moment.now().later(timedelta(hours=1)))
    assert trust.held
    trust.grant(trust.losses, long_ago())
    assert not trust.held


async def test_trust_expires_although_the_boot_clock_stood_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """B's machine is paused, and its clocks with it       A commits a new row, waits until B's trust has ended, answers
    B's machine resumes, and somebody sets its time of day
    R on B would hit the old value: the other clock has hardly moved
    """
    trust = Trust()
    trust.grant(trust.losses, Moment.now().later(timedelta(hours=1)))
    assert trust.held
    monkeypatch.setattr(moment, "wall", lambda: time.time() + 7200)
    assert not trust.held


async def test_setting_the_wall_clock_back_does_not_prolong_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    trust = Trust()
    trust.grant(trust.losses, long_ago())
    monkeypatch.setattr(moment, "wall", lambda: time.time() - 7200)
    assert not trust.held


async def test_trust_renewed_without_the_database_is_not_verified() -> None:
    trust = Trust()
    trust.grant(trust.losses, moment.NEVER)
    assert trust.verified
    trust.renew(moment.NEVER)
    assert (trust.held, trust.verified) == (True, False)
    trust.grant(trust.losses, moment.NEVER)
    assert trust.verified


async def test_a_failed_poll_does_not_shorten_trust_that_was_renewed_meanwhile() -> None:
    """A poll begins, and Postgres is silent · meanwhile Redis is found to answer, again and again · the poll fails"""
    trust = Trust()
    trust.grant(trust.losses, long_ago())
    trust.renew(moment.NEVER)
    trust.renew(long_ago())
    assert trust.held


async def test_a_reader_that_finds_trust_lapsed_continues_when_trust_is_renewed() -> None:
    trust = Trust()
    trust.grant(trust.losses, long_ago())
    readers = [asyncio.create_task(trust.believed()) for _ in range(3)]
    await asyncio.wait(readers, timeout=0)
    assert not any(reader.done() for reader in readers)
    trust.renew(moment.NEVER)
    await asyncio.gather(*readers)


async def test_a_reader_that_waits_for_news_fails_as_soon_as_trust_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "NEWS", timedelta(hours=1))
    trust = Trust()
    trust.grant(trust.losses, long_ago())
    reader = asyncio.create_task(trust.believed())
    await asyncio.wait({reader}, timeout=0)
    trust.lose("it does not answer")
    with pytest.raises(CacheUnavailable, match="Redis is not asked: it does not answer"):
        await reader


async def test_news_of_trust_that_has_already_ended_does_not_restore_belief(monkeypatch: pytest.MonkeyPatch) -> None:
    """R finds trust lapsed, and waits
    the relay ends a poll that began longer than TRUST ago
    """
    monkeypatch.setattr(leases, "NEWS", timedelta(milliseconds=50))
    trust = Trust()
    trust.grant(trust.losses, long_ago())
    reader = asyncio.create_task(trust.believed())
    await asyncio.wait({reader}, timeout=0)
    trust.grant(trust.losses, long_ago())
    assert not trust.held
    with pytest.raises(CacheUnavailable):
        await reader


async def test_a_poll_begun_before_trust_was_lost_does_not_restore_it() -> None:
    """The relay begins its poll · Redis restarts, and a connection detects it · the relay ends its poll"""
    trust = Trust()
    trust.grant(trust.losses, moment.NEVER)
    losses = trust.losses
    trust.lose("it has restarted")
    trust.grant(losses, moment.NEVER)
    assert trust.lost
    trust.renew(moment.NEVER)
    assert trust.lost, "Trust can go on, and not begin."
    trust.grant(trust.losses, moment.NEVER)
    assert trust.held


async def test_changed_is_called_only_when_trust_is_lost_and_when_it_is_granted_again() -> None:
    said: list[bool] = []
    trust = Trust(changed=said.append)
    trust.lose("it does not answer")
    for _ in range(3):
        trust.grant(trust.losses, moment.NEVER)
    for _ in range(3):
        trust.lose("it does not answer")
    assert said == [False, True]
