"""For workloads with stated needs, the advised strategy has the best bill; and the advice says why."""

from datetime import timedelta

import pytest

from app.advice import WORTH, Choice, Loss, Needs, Sure, Traffic, advise, pick
from app.lab.traces.workload import make
from tests.advice.bills import MINUTE, NEVER, SECOND, bills_of

WORKLOADS = [
    # A workload, its share of reads if it differs from the default, the needs of its data, and the strategy.
    ("catalogue", None, Needs(MINUTE, Loss.DASHBOARD), Choice.CACHE_ASIDE),
    ("catalogue", None, Needs(NEVER, Loss.NOTHING), Choice.CACHE_ASIDE),
    ("read-heavy", None, Needs(NEVER, Loss.DASHBOARD), Choice.CACHE_ASIDE),
    ("ycsb-c", None, Needs(None, Loss.NOTHING), Choice.CACHE_ASIDE),
    ("ycsb-b", None, Needs(SECOND, Loss.NOTHING), Choice.CACHE_ASIDE),
    ("ycsb-a", None, Needs(MINUTE, Loss.NOTHING), Choice.TTL_ONLY),
    ("write-heavy", None, Needs(MINUTE, Loss.DASHBOARD), Choice.TTL_ONLY),
    ("write-heavy", None, Needs(NEVER, Loss.NOTHING), Choice.CACHE_ASIDE),
    ("write-heavy", None, Needs(None, Loss.DATA), Choice.TTL_ONLY),
    ("flash-sale", None, Needs(NEVER, Loss.REVENUE, counts=True), Choice.WRITE_THROUGH),
    ("flash-sale", None, Needs(SECOND, Loss.DASHBOARD), Choice.TTL_ONLY),
    ("ycsb-f", None, Needs(NEVER, Loss.REVENUE), Choice.WRITE_THROUGH),
    ("counter-storm", None, Needs(NEVER, Loss.DASHBOARD, counts=True), Choice.WRITE_BEHIND),
    ("counter-storm", None, Needs(None, Loss.DATA, counts=True), Choice.WRITE_BEHIND),
    ("counter-storm", None, Needs(MINUTE, Loss.REVENUE, counts=True), Choice.TTL_ONLY),
    ("counter-storm", None, Needs(NEVER, Loss.NOTHING), Choice.CACHE_ASIDE),
    ("counter-storm", 0.95, Needs(NEVER, Loss.NOTHING, counts=True), Choice.WRITE_BEHIND),
    ("catalogue", None, Needs(NEVER, Loss.NOTHING, counts=True), Choice.CACHE_ASIDE),
    ("batch-import", None, Needs(MINUTE, Loss.NOTHING), Choice.TTL_ONLY),
    ("batch-import", None, Needs(NEVER, Loss.REVENUE), Choice.WRITE_THROUGH),
]


@pytest.mark.parametrize(("workload", "reads", "needs", "strategy"), WORKLOADS)
def test_the_advised_strategy_has_the_best_bill(
    workload: str, reads: float | None, needs: Needs, strategy: Choice
) -> None:
    trace = make(workload, requests=20_000, reads=reads)
    advice = advise(needs, Traffic(trace.reads, trace.writes, trace.keys))
    bills = {bill.name: bill for bill in bills_of(workload, reads, ttl=needs.stale or MINUTE)}

    # The best bill, found without the tree: no strategy is much cheaper, and no simpler one is about as cheap.
    fits = {name: bills[name].cost for name in advice.meets if not bills[name].stale_reads or needs.stale != NEVER}
    best = next(name for name, cost in fits.items() if cost <= WORTH * min(fits.values()))
    assert advice.strategy == best == strategy
    picked = pick(needs, bills.values())
    assert picked is bills[best]


@pytest.mark.parametrize("stale", [None, NEVER, timedelta(milliseconds=1), SECOND, MINUTE])
@pytest.mark.parametrize("loss", Loss)
@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("reads", [0, 1, 10, 100, 1_000])
def test_the_advised_strategy_always_meets_the_needs(
    stale: timedelta | None, loss: Loss, counts: bool, reads: int
) -> None:
    needs = Needs(stale, loss, counts)
    advice = advise(needs, Traffic(1_000 * reads, 1_000))
    assert advice.strategy in advice.meets
    assert list(advice.meets) == sorted(advice.meets, key=list(Choice).index)
    if loss is Loss.REVENUE or not counts:
        assert Choice.WRITE_BEHIND not in advice.meets
    if stale is not None and stale < SECOND:
        assert Choice.TTL_ONLY not in advice.meets
    if stale == NEVER and loss is Loss.REVENUE:
        assert advice.meets == [Choice.WRITE_THROUGH]


def test_the_reasons_name_each_question_each_answer_and_the_result() -> None:
    advice = advise(Needs(NEVER, Loss.DATA, counts=True), Traffic(300, 700, keys=10))
    stale, ratio, loss, so = advice.reasons
    assert stale.startswith("Can reads tolerate stale data? No. The article: write-through. Here: cache-aside and")
    assert ratio.startswith(
        "What is the read-to-write ratio? Writes dominate, or are near parity. The article: write-behind,"
    )
    assert ratio.endswith("(300 reads to 700 writes, 70.0 writes to a key: so many can become one row.)")
    assert "The data itself: the cache is the only source. The article: write-behind with streams" in loss
    assert so.startswith("So write-behind: a write costs one round trip to Redis")


def _said(needs: Needs, reads: int, writes: int) -> str:
    return " ".join(advise(needs, Traffic(reads, writes)).reasons)


def test_the_reasons_say_where_the_facts_differ_from_the_article() -> None:
    assert "Write-behind is out, whatever else speaks for it." in _said(Needs(None, Loss.REVENUE), 1, 9)
    assert "write-behind takes additions only" in _said(Needs(None, Loss.NOTHING), 1, 9)
    assert "belong in the database first" in _said(Needs(None, Loss.DATA), 1, 9)
    assert "up to about 1,000 reads to a write" in _said(Needs(None, Loss.NOTHING, counts=True), 20, 1)
    assert "two readers never disagree" in _said(Needs(NEVER, Loss.REVENUE), 1, 1)


def test_needs_that_leave_no_choice_make_the_advice_sure_without_traffic() -> None:
    advice = advise(Needs(NEVER, Loss.REVENUE), Traffic(0, 0))
    assert (advice.strategy, advice.sure) == (Choice.WRITE_THROUGH, Sure.HIGH)
    assert advice.why == "The needs alone decide, whatever the ratio is."


def test_negative_counts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"-1 reads and 2 writes cannot be\."):
        advise(Needs(None, Loss.NOTHING), Traffic(-1, 2))
