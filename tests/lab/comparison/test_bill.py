"""The sums of a bill."""

from datetime import timedelta

from app.lab.comparison.bench import Judged
from app.lab.comparison.bill import Latency, make_bill
from app.lab.comparison.contestant import CONTESTANTS
from app.lab.comparison.costs import Costs
from app.lab.comparison.oracle import Verdict
from app.lab.comparison.replay import Tally
from app.lab.strategy import Holds


def test_percentiles_are_measured_times() -> None:
    latency = Latency.of([number / 1000 for number in range(1000, 0, -1)])
    assert latency.p50 == timedelta(milliseconds=500)
    assert latency.p99 == timedelta(milliseconds=990)
    assert latency.p999 == timedelta(milliseconds=999)
    assert latency.mean == timedelta(milliseconds=500.5)
    assert Latency.of([]) == Latency()
    assert Latency.of([0.002]).as_json() == {"mean": 2.0, "p50": 2.0, "p99": 2.0, "p999": 2.0}


def test_a_bill_adds_up_the_replay_and_the_drills() -> None:
    tally = Tally()
    tally.reads.extend([0.001] * 8)
    tally.writes.extend([0.006] * 2)
    tally.acknowledged = 2
    judged = Judged(Verdict(stale=1, longest_stale=timedelta(seconds=1)), {"a": 2}, rows=1)
    bill = make_bill(CONTESTANTS[0], Holds.VALUES, tally, Costs(reads=5, writes=2, asked=4), judged)
    assert bill.hit_ratio == 0.5
    assert bill.coalescing == 2
    assert round(bill.cost, 6) == 2
    assert (bill.stale_reads, bill.longest_stale, bill.lost, bill.doubled) == (1, timedelta(seconds=1), 0, 0)
    assert bill.as_json()["under_contention"] is None
    assert bill.as_json()["hit_ratio"] == 0.5


def test_a_bill_without_operations_has_no_ratios() -> None:
    bill = make_bill(CONTESTANTS[0], Holds.VALUES, Tally(), Costs(), Judged(Verdict(), {}, rows=0))
    assert (bill.hit_ratio, bill.coalescing, bill.cost) == (None, None, 0.0)


def test_exactly_half_of_the_operations_took_no_longer_than_the_median() -> None:
    assert Latency.of([0.001, 0.002]).p50 == timedelta(milliseconds=1)
    assert Latency.of([0.001, 0.002, 0.003]).p50 == timedelta(milliseconds=2)
    assert Latency.of([number / 1000 for number in range(1, 101)]).p99 == timedelta(milliseconds=99)
