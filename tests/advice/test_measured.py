"""Picking the best strategy from measured bills."""

from dataclasses import replace
from datetime import timedelta

from app.advice import Choice, Loss, Needs, meets, pick
from tests.advice.bills import MINUTE, NEVER, SECOND, Bill

ASIDE, TTL, BEHIND = (Bill(name, 10) for name in (Choice.CACHE_ASIDE, Choice.TTL_ONLY, Choice.WRITE_BEHIND))
ANY = Needs(None, Loss.NOTHING, counts=True)


def test_the_cheapest_strategy_is_picked_or_the_simplest_of_nearly_equal_ones() -> None:
    cheap = replace(BEHIND, cost=6)
    assert pick(ANY, [cheap, TTL, ASIDE]) is cheap
    assert pick(ANY, [TTL, BEHIND, ASIDE]) is ASIDE
    assert pick(ANY, [replace(BEHIND, cost=7), TTL]) is TTL


def test_a_strategy_whose_bill_breaks_the_needs_is_not_picked() -> None:
    stale = replace(TTL, cost=1, stale_reads=3, longest_stale=timedelta(seconds=61))
    assert pick(ANY, [stale, ASIDE]) is stale
    assert pick(Needs(MINUTE, Loss.NOTHING), [stale, ASIDE]) is ASIDE
    in_time = replace(stale, longest_stale=MINUTE)
    assert pick(Needs(MINUTE, Loss.NOTHING), [in_time, ASIDE]) is in_time
    assert pick(Needs(NEVER, Loss.NOTHING), [replace(ASIDE, stale_reads=1, longest_stale=SECOND)]) is None
    for broken in (replace(BEHIND, cost=1, lost=1), replace(BEHIND, cost=1, doubled=1)):
        assert pick(ANY, [broken, ASIDE]) is broken
        assert pick(replace(ANY, loss=Loss.DASHBOARD), [broken, ASIDE]) is ASIDE


def test_a_bill_of_a_foreign_strategy_is_never_picked() -> None:
    assert pick(ANY, [Bill("no cache", 1), Bill("list queue", 1)]) is None
    assert pick(replace(ANY, loss=Loss.REVENUE), [BEHIND]) is None
    assert meets(ANY) == list(Choice)
