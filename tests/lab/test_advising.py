"""The advised strategy is the best by the measured bill, for workloads with stated needs.

A bill is what the real stores were asked for, not how long they took: times vary on a busy machine. So does the number
of clients that share a round trip, so there is one client. The test finds the best strategy in the bill, without asking
the tree. The longer form also compares times, with eight clients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from statistics import median

import pytest

from app.advice import Choice, Loss, Needs, Traffic, advise
from app.caching import Flusher
from app.embedded import Endpoints
from app.lab.alternatives import NO_CACHE, alternatives
from app.lab.comparison.bill import Bill
from app.lab.comparison.compare import compare
from app.lab.comparison.plan import Plan
from app.lab.traces.trace import Trace
from app.lab.traces.workload import make

NEVER, SECOND, MINUTE = timedelta(0), timedelta(seconds=1), timedelta(minutes=1)
REQUESTS, WARM_UP, KEYS = 450, 150, 50
FULL = 2
"""The factor by which the longer form is larger."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The cost of each statement; a round trip to Redis costs 1."""

    database_read: float
    database_write: float

    def cost(self, bill: Bill) -> float:
        """Returns the cost of a whole bill."""
        asked = bill.database_reads * self.database_read + bill.database_writes * self.database_write
        return asked + bill.redis_round_trips


WEIGHTS = [
    Weights(5, 8),  # As the lab measures it, both stores on one machine.
    Weights(3, 10),  # A fast database with a slow disk.
    Weights(20, 25),  # A database far away.
]
ENOUGH = 1.5
"""An advice is right if it costs at most this many times the best: a simpler strategy is worth as much."""

CASES = [
    # A workload, its share of reads where it is not the default, and the needs of its data.
    ("catalogue", None, Needs(MINUTE, Loss.DASHBOARD)),
    ("catalogue", None, Needs(NEVER, Loss.NOTHING)),
    ("catalogue", None, Needs(NEVER, Loss.NOTHING, counts=True)),
    ("ycsb-c", None, Needs(None, Loss.NOTHING)),
    ("ycsb-b", None, Needs(SECOND, Loss.NOTHING)),
    ("ycsb-b", None, Needs(NEVER, Loss.REVENUE)),
    ("ycsb-b", None, Needs(NEVER, Loss.DASHBOARD, counts=True)),
    ("ycsb-a", None, Needs(MINUTE, Loss.NOTHING)),
    ("ycsb-a", None, Needs(NEVER, Loss.DASHBOARD)),
    ("ycsb-a", None, Needs(None, Loss.DATA, counts=True)),
    ("flash-sale", None, Needs(NEVER, Loss.REVENUE, counts=True)),
    ("flash-sale", None, Needs(MINUTE, Loss.DASHBOARD)),
    ("write-heavy", None, Needs(None, Loss.DATA)),
    ("write-heavy", None, Needs(NEVER, Loss.NOTHING)),
    ("write-heavy", None, Needs(NEVER, Loss.NOTHING, counts=True)),
    ("counter-storm", None, Needs(NEVER, Loss.DASHBOARD, counts=True)),
    ("counter-storm", None, Needs(MINUTE, Loss.REVENUE, counts=True)),
    ("counter-storm", 0.95, Needs(NEVER, Loss.NOTHING, counts=True)),
]


@pytest.fixture(autouse=True)
def slow_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of flushes does not depend on how long a replay takes, as it would with five a second."""
    monkeypatch.setattr("app.lab.comparison.counted_views.Flusher", partial(Flusher, interval=timedelta(seconds=5)))


@cache
def _workload(name: str, reads: float | None, times: int = 1) -> Trace:
    return make(name, requests=REQUESTS * times, keys=KEYS * times, reads=reads)


async def _bills(endpoints: Endpoints, trace: Trace, times: int, *, clients: int = 1) -> Mapping[str, Bill]:
    """Returns the bills of the real comparison, by name."""
    # The TTL is that for data of any age: even the shortest staleness in the needs is longer than the replay.
    contestants = alternatives(Needs(None, Loss.NOTHING))
    plan = Plan(clients=clients, warm_up=WARM_UP * times, drills=False)
    comparison = await compare(endpoints, trace, plan, contestants=contestants)
    return {bill.name: bill for bill in comparison.bills}


def _fits(needs: Needs, bill: Bill) -> bool:
    """Returns whether the strategy may be used at all, by what was measured, and by what no replay measures."""
    if bill.name == NO_CACHE or bill.lost or bill.doubled:
        return False
    if bill.name == Choice.WRITE_BEHIND:  # It adds, and what it has accepted is only in Redis.
        return needs.counts and needs.loss is not Loss.REVENUE
    if bill.name == Choice.TTL_ONLY:  # Sooner or later an answer is as old as the TTL.
        return needs.stale is None or needs.stale >= SECOND
    if bill.name in (Choice.CACHE_ASIDE, Choice.READ_THROUGH) and needs.stale == NEVER:
        # Two readers may disagree while a write is in flight, and money depends on it.
        return needs.loss is not Loss.REVENUE
    return needs.stale is None or bill.longest_stale <= needs.stale


def _best(needs: Needs, costs: Mapping[str, float], bills: Mapping[str, Bill]) -> float:
    return min(costs[bill.name] for bill in bills.values() if _fits(needs, bill))


def _same(names: Sequence[tuple[str, float | None, Needs]]) -> Mapping[tuple[str, float | None], list[Needs]]:
    found: dict[tuple[str, float | None], list[Needs]] = {}
    for name, reads, needs in names:
        found.setdefault((name, reads), []).append(needs)
    return found


BY_WORKLOAD = _same(CASES)
"""Grouped so that each workload is played once."""


def test_there_are_enough_cases_and_each_strategy_is_advised_in_some() -> None:
    assert len({(name, reads, needs) for name, reads, needs in CASES}) >= 12
    answers = set()
    for name, reads, needs in CASES:
        trace = _workload(name, reads)
        answers.add(advise(needs, Traffic(trace.reads, trace.writes, trace.keys)).strategy)
    # Read-through is never the cheaper one.
    assert answers == {*Choice} - {Choice.READ_THROUGH}


@pytest.mark.parametrize("times", [1, pytest.param(FULL, marks=pytest.mark.prove)])
@pytest.mark.parametrize(
    ("workload", "of_all"), BY_WORKLOAD.items(), ids=[f"{name} {reads or ''}" for name, reads in BY_WORKLOAD]
)
async def test_the_advised_strategy_has_the_best_measured_bill_that_meets_the_needs(
    workload: tuple[str, float | None], of_all: list[Needs], endpoints: Endpoints, times: int
) -> None:
    trace = _workload(*workload, times)
    bills = await _bills(endpoints, trace, times)
    for needs in of_all:
        advised = advise(needs, Traffic(trace.reads, trace.writes, trace.keys)).strategy
        assert _fits(needs, bills[advised])
        for weights in WEIGHTS:
            costs = {name: weights.cost(bill) for name, bill in bills.items()}
            assert costs[advised] <= ENOUGH * _best(needs, costs, bills), (needs, weights, advised, costs)


@pytest.mark.prove
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("workload", "of_all"), BY_WORKLOAD.items(), ids=[f"{name} {reads or ''}" for name, reads in BY_WORKLOAD]
)
async def test_no_strategy_that_meets_the_needs_is_twice_as_fast_as_the_advised_one(
    workload: tuple[str, float | None], of_all: list[Needs], endpoints: Endpoints
) -> None:
    """A single measurement says little, so the median of five comparisons counts."""
    trace = _workload(*workload, FULL)
    rounds = [await _bills(endpoints, trace, FULL, clients=8) for _round in range(5)]
    bills = rounds[0]
    costs = {name: median(each[name].cost for each in rounds) for name in bills}
    for needs in of_all:
        advised = advise(needs, Traffic(trace.reads, trace.writes, trace.keys)).strategy
        assert costs[advised] <= 2 * _best(needs, costs, bills), (needs, advised, costs)
