"""What a client is told is true, even when the stores change: the name of Redis leads to another one, or Redis silently
goes back; Postgres is restored, promoted, a standby, or read-only; another deployment, or another Redis, interferes.

Each seed is a separate history on separate servers: two or three instances in this process, clients that read and
write, and a nemesis that injects three faults. In the end three things are checked:

- No read was older than a write that was answered before it began, unless the database itself has lost that write. From
  a second after the heal on, nobody reads a lost write (`ledger.py`).
- The stock of each SKU is linearizable within each history of the database (`shelf.py`).
- Each view that was answered is counted once, unless the database itself has lost it, and no view counts twice
  (`views.py`).
"""

import random
import time
from collections import Counter
from contextlib import suppress

import asyncpg
import pytest

from app.caching import Outcome
from tests.eventually import eventually
from tests.histories.identity.crowd import Crowd
from tests.histories.identity.deployment import Deployment
from tests.histories.identity.nemesis import NEEDS_STANDBY, Nemesis, drawn
from tests.histories.identity.state import State
from tests.histories.linearizability.checker import Verdict
from tests.topologies.topology import seeded
from tests.topologies.ways import Ways

SEEDS = {
    "redis-direct": range(200),
    "redis-pooled": range(200, 220),
    "sentinel-direct": range(220, 240),
    "sentinel-pooled": range(240, 260),
}
SAMPLE = {
    # A smallest set that covers every fault.
    "redis-direct": (0, 16, 30, 32),
}
STRIKES = 3
ENOUGH = 100
"""Number of hits. The clients continue until then, or longer, until all faults are healed."""
ROWS = 4


@pytest.fixture(scope="module")
def verdicts() -> Counter[Verdict]:
    """The number of each verdict, for every SKU in every history of a database, over all seeds."""
    return Counter()


@pytest.mark.parametrize(("topology", "seed"), seeded(SEEDS, SAMPLE), indirect=["topology"], scope="package")
async def test_every_answer_is_true_whatever_happens_to_the_stores(
    ways: Ways, seed: int, verdicts: Counter[Verdict], capsys: pytest.CaptureFixture[str]
) -> None:
    randomness = random.Random(seed)
    faults = drawn(randomness, STRIKES)
    began = time.monotonic()
    async with Deployment.started(
        ways, randomness.choice((2, 2, 3)), standby=bool(NEEDS_STANDBY & set(faults))
    ) as deployment:
        crowd = Crowd(deployment, randomness)
        crowd.ledger.knows(await _furnished(deployment))
        nemesis = Nemesis(deployment, crowd, random.Random(randomness.random()))
        started = time.monotonic()
        async with crowd.calling():
            await nemesis.strike(faults)
            struck = time.monotonic()
            missing = {(name, key) for name in deployment.instances for key in crowd.ledger.rows}
            await eventually(lambda: _all_believe(deployment, crowd, missing))
        healed = time.monotonic()
        state = await _counted(deployment, crowd)
    wrong, found = crowd.shelf.check(crowd.ledger.exempt)
    verdicts.update(found)
    with capsys.disabled():
        counts = ", ".join(f"{number} {what}" for what, number in sorted(crowd.ledger.counts.items()))
        views = crowd.views
        lost = len(set(views.answered) & views.may_be_lost - set(state.pages))
        print(
            f"\nSeed {seed:3}: {', '.join(faults)}; {counts}; stock {dict(crowd.shelf.recorder.outcomes)},"
            f" {dict(Counter(map(str, found)))}; views {len(views.sent)} sent, {len(views.answered)} answered,"
            f" {lost} lost of {len(views.may_be_lost & set(views.answered))};"
            f" {started - began:.1f} s + {struck - started:.1f} s + {healed - struck:.1f} s +"
            f" {time.monotonic() - healed:.1f} s",
            end="",
        )
    wrong += [*crowd.ledger.wrong, *crowd.shelf.recorder.broken, *crowd.views.check(state)]
    assert not wrong, "\n".join(wrong)


def test_nearly_every_history_of_stock_gets_a_verdict(verdicts: Counter[Verdict]) -> None:
    assert verdicts[Verdict.UNDECIDED] <= verdicts.total() / 20


async def _furnished(deployment: Deployment) -> State:
    sql = await asyncpg.connect(deployment.database_url)
    for number in range(ROWS):
        await sql.execute("INSERT INTO users (name, email) VALUES ($1, $1)", f"u{number}@example.com")
        await sql.execute("INSERT INTO products (sku, name, price) VALUES ($1, $1, '1')", f"P{number}")
    state = await State.of(sql)
    await sql.close()
    return state


async def _all_believe(deployment: Deployment, crowd: Crowd, missing: set[tuple[str, str]]) -> bool:
    """Whether each instance has hit each row since the last fault, and enough was read for the history to prove
    something. `missing` are the hits that have not come yet: writers go on, so they do not come all at once."""
    for name, key in sorted(missing):
        reading = await crowd.read(name, deployment.instances[name], key)
        if reading is not None and reading.outcome is Outcome.HIT:
            missing.discard((name, key))
    return not missing and crowd.ledger.counts["hit"] >= ENOUGH


async def _counted(deployment: Deployment, crowd: Crowd) -> State:
    """Returns what the database has when all answered views are counted, and the instances have stopped."""
    sql = await asyncpg.connect(deployment.database_url)
    state = await State.of(sql)

    async def all_are() -> bool:
        nonlocal state
        state = await State.of(sql)
        return not crowd.views.lacking(state)

    with suppress(AssertionError):  # The check says which ones are missing.
        await eventually(all_are)
    # Late answers, takeovers, and views accepted again come to an end with the instances.
    await deployment.stop()
    state = await State.of(sql)
    await sql.close()
    return state
