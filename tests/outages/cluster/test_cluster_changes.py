"""A Redis Cluster changes and breaks under load: three processes of the service, and clients that read and write all
four resources through any of them. After each fault:

- No read was older than a write that was answered before it began. Hits that say `unverified` are exempt.
- The stock of each SKU is linearizable.
- Each accepted view is counted once.
- Only what is in the slots of a primary that was away, or in slots that were half moved for long, was refused.
- Each process takes changes in each slot, and hits each row, again.
"""

import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import pytest

from tests.eventually import eventually
from tests.histories.identity.shelf import Beginning
from tests.histories.identity.state import State
from tests.outages.cluster.clients import Clients
from tests.outages.cluster.deployment import Deployment
from tests.outages.cluster.journal import failed, told
from tests.outages.cluster.nemesis import FAULTS, Nemesis
from tests.outages.cluster.probes import all_served
from tests.outages.failover.clients import HOT
from tests.outages.failover.two_histories import Failover

ROUNDS = 3
SAMPLE = ["slots resharded", "primary killed"]
ALL = {
    **{fault: [fault] for fault in FAULTS},
    **{f"seed {seed}": random.Random(seed).choices(list(FAULTS), k=ROUNDS) for seed in range(8)},
}
HITS = 100
"""How many hits there are before each fault."""
CALLS = 300
"""How many calls are made while a slot is half moved."""
AT_MOST, IF_BUSY = 0.001, 0.05
"""The part of all other calls that may be answered with a 5xx, alone and beside other tests: those may keep a process
from polling for seconds."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(SAMPLE, id="sample", marks=pytest.mark.prove),
        *(pytest.param(faults, id=name, marks=pytest.mark.prove) for name, faults in ALL.items()),
    ],
)
async def test_nothing_stale_is_read_and_no_view_is_lost_or_doubled_while_a_cluster_changes(
    faults: Sequence[str], request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    randomness = random.Random(request.node.name)
    async with Deployment.started() as deployment:
        nemesis = Nemesis(deployment, randomness)
        for number, fault in enumerate(faults):
            clients = Clients(str(number), deployment.services, deployment.rows, deployment.skus, randomness)
            said, wrong = await _round(deployment, clients, nemesis, fault)
            others = clients.journal.others()
            if len(refused := failed(others)) > len(others) * (IF_BUSY if faults is SAMPLE else AT_MOST):
                wrong += [f"{told(others)} calls failed without a reason:", *map(str, refused)]
            with capsys.disabled():
                print(f"\n{said}", end="")
            assert not wrong, "\n".join(wrong[:20])


async def _round(deployment: Deployment, clients: Clients, nemesis: Nemesis, fault: str) -> tuple[str, list[str]]:
    """Returns what has happened, and what is wrong with it."""
    beginning = await deployment.state()
    clients.rows.began_with(beginning)
    clients.shelf.beginnings.append(Beginning(0.0, 0.0, 0.0, beginning.stock))
    journal = clients.journal
    async with clients.calling(), clients.connected() as connections:
        await eventually(lambda: _is(clients.counts["hit"] >= HITS))
        struck = time.monotonic()
        heal = await nemesis.strike(fault, journal, lambda: _are_made(clients, CALLS))
        stood = time.monotonic()
        await all_served(deployment, list(connections.values()), deployment.slots)
        served = time.monotonic()
        for outage in journal.outages:
            outage.ended = min(outage.ended, served)
        await heal()
        await all_served(deployment, list(connections.values()), deployment.slots)
        if missing := await _missing_hits(clients):
            clients.wrong.append(f"These rows are not trusted again: {missing}.")
        fates = [(await connection.ask("/write-behind")).json() for connection in connections.values()]
    state = await deployment.counted(clients.views)
    wrong, verdicts = clients.shelf.check([])
    wrong += [*clients.wrong, *clients.shelf.recorder.broken, *_wrongly_read(clients, state)]
    wrong += _wrongly_counted(clients, beginning, state)
    wrong += [f"{fate['lost']} views are lost." for fate in fates if fate["lost"]]
    excused, others = journal.excused(), journal.others()
    return (
        f"{fault}: stands after {stood - struck:.1f} s, all is served {served - stood:.2f} s later;"
        f" failed {told(excused)} calls for what was away, and {told(others)} others;"
        f" {dict(sorted(clients.counts.items()))}; stock {dict(clients.shelf.recorder.outcomes)},"
        f" {[str(verdict) for verdict in verdicts]}; {sum(fate['recovered'] for fate in fates)} views recovered",
        wrong,
    )


async def _is(condition: bool) -> bool:
    return condition


async def _are_made(clients: Clients, number: int) -> None:
    enough = len(clients.journal.calls) + number
    await eventually(lambda: _is(len(clients.journal.calls) >= enough))


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


def _wrongly_read(clients: Clients, state: State) -> list[str]:
    """Returns what was read and should not have been: Postgres has one history, which loses nothing."""
    never = Failover(float("inf"), float("inf"), state)
    lost = [f"{key}: {names} are lost." for key, names in clients.rows.lost(never).items() if names]
    return [*clients.rows.check(never), *lost]


def _wrongly_counted(clients: Clients, beginning: State, state: State) -> list[str]:
    """Returns the pages that Postgres has not counted as often as they were viewed."""
    own = {page: views for page, views in state.pages.items() if page.startswith(f"{clients.name}/")}
    wrong = clients.views.check(replace(state, pages=own))
    hot = state.pages.get(HOT, 0) - beginning.pages.get(HOT, 0)
    if not clients.counts["viewed"] <= hot <= clients.counts["hot sent"]:
        sent, viewed = clients.counts["hot sent"], clients.counts["viewed"]
        wrong.append(f"{HOT} is counted {hot} times, was viewed {sent} times, and {viewed} count.")
    return wrong
