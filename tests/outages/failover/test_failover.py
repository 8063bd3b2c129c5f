"""Postgres fails over, under load, to an asynchronous standby that lacks the last commits: three processes of the
service on one Redis, and clients that read and write all four resources.

    the standby is cut off: what is committed from here on will be lost, but Redis and the clients know it
    the primary is killed; the standby is promoted; the name follows, for one process after the other

Then:

- No read answers what was lost, from the moment on at which no trust can last any longer: 0.4 s after the primary was
  dead. Hits that say `unverified` are exempt.
- No read is older than a write that was answered before, within each history of the database. The stock of each SKU is
  linearizable in each.
- Nothing is lost that was committed when the standby was cut off.
- Each accepted view is counted once, those that the database had lost, too: their process accepts them again.
"""

import random
import time
from contextlib import suppress
from dataclasses import replace

import pytest

from tests.eventually import eventually
from tests.histories.identity.shelf import Beginning
from tests.histories.identity.state import State
from tests.histories.linearizability.operation import Kind
from tests.outages.failover.clients import HOT, Clients
from tests.outages.failover.deployment import Deployment
from tests.outages.failover.two_histories import Failover
from tests.topologies.topology import seeded
from tests.topologies.ways import Ways

SEEDS = {
    "redis-direct": range(20),
    "redis-pooled": range(20, 25),
    "sentinel-direct": range(25, 30),
    "sentinel-pooled": range(30, 35),
}
SAMPLE = {"redis-direct": (0,)}
HITS, WRITES = 100, 3
AGAIN = 25.0
"""Seconds for which a process certainly still has the receipt of a view that Postgres had counted: see
docs/promises.md."""


@pytest.mark.parametrize(("topology", "seed"), seeded(SEEDS, SAMPLE), indirect=["topology"], scope="package")
async def test_nothing_lost_is_read_and_no_view_is_doubled_after_a_failover_with_loss(
    ways: Ways, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    randomness = random.Random(seed)
    started = time.monotonic()
    async with Deployment.started(ways) as deployment:
        clients = Clients(deployment.services, sorted(deployment.beginning.rows), randomness)
        clients.rows.began_with(deployment.beginning)
        calling = time.monotonic()
        async with clients.calling():
            await eventually(lambda: _is(clients.counts["hit"] >= HITS))
            reached, kept = await deployment.cut_off()
            await _something_is_written(clients, time.monotonic())
            await eventually(lambda: _has_more_pages(deployment, kept))
            failover = await deployment.fail_over(kept, randomness, lambda: _without_postgres(clients, randomness))
            if missing := await _missing_hits(clients):
                clients.wrong.append(f"These rows are not trusted again: {missing}.")
            else:
                await _something_is_written(clients, time.monotonic())
        clients.shelf.beginnings.append(
            Beginning(failover.moved, failover.moved, max(failover.moved, failover.known), kept.stock)
        )
        clients.views.may_be_lost |= _forgotten(clients, failover)
        state = await deployment.counted(clients.views.lacking)
    wrong, verdicts = clients.shelf.check([])
    lost = {key: len(names) for key, names in clients.rows.lost(failover).items() if names}
    with capsys.disabled():
        print(
            f"\nSeed {seed}: {dict(sorted(clients.counts.items()))}; lost {lost}; stock"
            f" {dict(clients.shelf.recorder.outcomes)}, {[str(verdict) for verdict in verdicts]};"
            f" {calling - started:.1f} s + {failover.dead - calling:.1f} s + {time.monotonic() - failover.dead:.1f} s",
            end="",
        )
    wrong += [*clients.wrong, *clients.rows.check(failover), *clients.shelf.recorder.broken]
    wrong += _lost_too_much(clients, failover, reached)
    wrong += _wrongly_counted(clients, state)
    assert not wrong, "\n".join(wrong[:20])
    assert lost, "The standby lacked nothing."


async def _is(condition: bool) -> bool:
    return condition


async def _something_is_written(clients: Clients, since: float) -> None:
    """Returns when some users, some products, and the stock of some SKU were changed since then."""

    async def is_written() -> bool:
        rows = [
            key.partition("/")[0]
            for key, writes in clients.rows.writes.items()
            for write in writes.values()
            if write.began > since and write.answered is not None
        ]
        stock = [
            one
            for history in clients.shelf.recorder.histories.values()
            for one in history
            if one.kind is not Kind.READ and one.start > since and one.answer and one.answer.status in (200, 201)
        ]
        return min(rows.count("users"), rows.count("products"), len(stock)) >= WRITES

    await eventually(is_written)


async def _has_more_pages(deployment: Deployment, kept: State) -> bool:
    """Whether the primary has counted views that the standby lacks."""
    return len(set((await deployment.state()).pages) - set(kept.pages)) >= WRITES


async def _without_postgres(clients: Clients, randomness: random.Random) -> None:
    """Between the death of the primary and the promotion: until reads are answered without Postgres, or less long.

    An instance that knows of a change which Redis has not been told of refuses them. Others mark them."""
    if randomness.random() < 0.7:
        before = clients.counts["marked"] + clients.counts["read refused"]
        await eventually(lambda: _is(clients.counts["marked"] + clients.counts["read refused"] > before + 20))


async def _missing_hits(clients: Clients) -> list[tuple[str, str]]:
    """Returns when each instance has hit each row, and could verify it; or after a long time, with what is missing."""
    async with clients.connected() as connections:
        missing = {(url, key) for url in connections for key in clients.rows.writes}

        async def all_have() -> bool:
            for url, key in sorted(missing):
                if await clients.read(connections[url], key):
                    missing.discard((url, key))
            return not missing

        with suppress(AssertionError):
            await eventually(all_have)
        return sorted(missing)


def _forgotten(clients: Clients, failover: Failover) -> set[str]:
    """Returns the pages whose receipt may have been dropped before the failover, on a machine this slow."""
    now = time.monotonic()
    return {page for page, at in clients.views.answered.items() if at < now - AGAIN} - set(failover.kept.pages)


def _lost_too_much(clients: Clients, failover: Failover, reached: float) -> list[str]:
    """Returns the writes that are lost, although the standby had got them."""
    return [
        f"{key} was written as {name!r} before the standby was cut off, and is lost."
        for key, names in clients.rows.lost(failover).items()
        for name in sorted(names)
        if (clients.rows.writes[key][name].answered or 0.0) < reached
    ]


def _wrongly_counted(clients: Clients, state: State) -> list[str]:
    """Returns the pages that the database has not counted as often as they were viewed."""
    pages = dict(state.pages)
    hot = pages.pop(HOT, 0)
    wrong = clients.views.check(replace(state, pages=pages))
    least = clients.counts["viewed"] - len(clients.views.may_be_lost & set(clients.views.answered))
    if not least <= hot <= clients.counts["hot sent"]:
        wrong.append(f"{HOT} is counted {hot} times, was viewed {clients.counts['hot sent']} times, and {least} count.")
    return wrong
