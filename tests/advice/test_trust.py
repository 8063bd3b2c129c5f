"""How sure an advice is."""

from app.advice import Advice, Loss, Needs, Sure, Traffic, advise
from tests.advice.bills import MINUTE


def _sure(reads: int, writes: int) -> Advice:
    return advise(Needs(MINUTE, Loss.NOTHING), Traffic(reads, writes))


def test_advice_is_surer_with_more_traffic_and_a_ratio_further_from_the_line() -> None:
    assert _sure(0, 0).sure is Sure.LOW
    assert _sure(0, 0).why == "Nothing was read or written yet."
    assert _sure(10, 0).sure is Sure.LOW
    assert _sure(100, 0).sure is Sure.MEDIUM
    assert _sure(2_000, 0).sure is Sure.HIGH
    assert _sure(1_000, 100).sure is Sure.LOW
    assert _sure(150_000, 10_000).sure is Sure.MEDIUM
    assert _sure(1_000_000, 10_000).sure is Sure.HIGH
    assert _sure(5_000, 5_000).sure is Sure.HIGH
    assert _sure(950, 50).why == (
        "Of 1,000 operations 5.0% write, 3.8% to 6.5% with what chance does; the line is at 9.1% (10 reads to a write)."
    )
