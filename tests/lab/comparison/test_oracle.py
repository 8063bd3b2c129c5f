"""What the oracle calls stale, uncommitted, lost and doubled, in interleavings with times in seconds."""

from collections.abc import Sequence
from datetime import timedelta

from app.lab.comparison.journal import Noted
from app.lab.comparison.oracle import Oracle, Verdict
from app.lab.strategy import Holds

CLOCK = (0.0, 0.0)
FINE = Verdict()


def values(
    writes: Sequence[tuple[int, float, float | None]],
    reads: Sequence[tuple[int | None, float, float]],
    noted: Sequence[tuple[int, float]],
    *,
    later: bool = False,
    clock: tuple[float, float] = CLOCK,
) -> Verdict:
    """Judges one key. A write is its value, when it began, and when it was acknowledged; a read is its answer, when it
    began, and when it ended; an entry of `noted` is a value, and since when the database has it."""
    oracle = Oracle(Holds.VALUES, later=later)
    play(oracle, writes, reads)
    journal = {"key": [Noted(value, at) for value, at in noted]}
    return oracle.judge(journal, {"key": noted[-1][0]} if noted else {}, clock)


def counts(
    writes: Sequence[tuple[int, float, float | None]], reads: Sequence[tuple[int, float, float]], final: int
) -> Verdict:
    """Judges a counter in the same way; the database has `final` at the end."""
    oracle = Oracle(Holds.COUNTS)
    play(oracle, writes, reads)
    return oracle.judge({}, {"key": final}, CLOCK)


def play(
    oracle: Oracle,
    writes: Sequence[tuple[int, float, float | None]],
    reads: Sequence[tuple[int | None, float, float]],
) -> None:
    for value, began, acknowledged in writes:
        write = oracle.begin("key", value, began)
        if acknowledged is not None:
            write.acknowledged = acknowledged
    for answer, began, ended in reads:
        oracle.read("key", answer, began, ended)


def test_a_read_of_the_last_acknowledged_value_is_fine() -> None:
    assert values([(1, 1, 2)], [(0, 0, 0.5), (1, 3, 4)], [(1, 1.5)]) == FINE


def test_a_read_that_began_before_the_acknowledgement_may_return_either_value() -> None:
    assert values([(1, 1, 2)], [(0, 1.9, 5), (1, 1.9, 5)], [(1, 1.5)]) == FINE


def test_an_old_value_in_a_read_begun_after_the_acknowledgement_is_stale_since_then() -> None:
    assert values([(1, 1, 2)], [(0, 5, 6)], [(1, 1.5)]) == Verdict(stale=1, longest_stale=timedelta(seconds=3))


def test_staleness_counts_from_the_first_newer_acknowledged_value() -> None:
    found = values([(1, 1, 2), (2, 3, 4)], [(0, 5, 6), (1, 5, 6)], [(1, 1.5), (2, 3.5)])
    assert found == Verdict(stale=2, longest_stale=timedelta(seconds=3))


def test_the_order_of_the_database_counts_and_not_that_of_the_acknowledgements() -> None:
    # 2 was committed first, and acknowledged last: 1 is the newer one.
    assert values([(1, 1, 3), (2, 1, 4)], [(1, 5, 6)], [(2, 1.5), (1, 1.6)]) == FINE
    assert values([(1, 1, 3), (2, 1, 4)], [(2, 5, 6)], [(2, 1.5), (1, 1.6)]).stale == 1


def test_a_value_read_before_the_database_had_it_is_uncommitted() -> None:
    assert values([(1, 1, 4)], [(1, 1.5, 2)], [(1, 3)]) == Verdict(uncommitted=1)


def test_a_possible_difference_of_the_clocks_is_no_anomaly() -> None:
    assert values([(1, 1, 4)], [(1, 1.5, 2)], [(1, 3)], clock=(0.0, 1.5)) == FINE
    assert values([(1, 1, 4)], [(1, 1.5, 2)], [(1, 103)], clock=(101.5, 0.0)) == FINE
    assert values([(1, 1, 4)], [(1, 1.5, 2)], [(1, 103)], clock=(100.0, 0.1)) == Verdict(uncommitted=1)


def test_a_value_that_the_database_never_had_is_uncommitted() -> None:
    assert values([(1, 1, None)], [(1, 2, 3)], []) == Verdict(uncommitted=1)


def test_an_answer_without_a_row_is_uncommitted() -> None:
    assert values([], [(None, 2, 3)], []) == Verdict(uncommitted=1)


def test_write_behind_may_return_what_the_database_will_have() -> None:
    assert values([(1, 1, 2)], [(1, 2.5, 3)], [(1, 4)], later=True) == FINE


def test_write_behind_must_not_return_what_the_database_never_gets() -> None:
    assert values([(1, 1, 2)], [(1, 2.5, 3)], [], later=True) == Verdict(uncommitted=1, lost=1)


def test_a_write_that_was_merged_with_a_later_one_is_not_lost() -> None:
    assert values([(1, 1, 2), (2, 3, 4)], [(1, 2.5, 2.6)], [(2, 5)], later=True) == FINE


def test_a_read_of_a_merged_value_is_stale_after_the_next_acknowledgement() -> None:
    found = values([(1, 1, 2), (2, 3, 4)], [(1, 6, 7)], [(2, 5)], later=True)
    assert found == Verdict(stale=1, longest_stale=timedelta(seconds=2))


def test_an_acknowledged_write_that_is_missing_at_the_end_is_lost() -> None:
    assert values([(1, 1, 2), (2, 3, 4)], [], [(1, 1.5)]) == Verdict(lost=1)
    assert values([(1, 1, None)], [], []) == FINE


def test_a_retry_that_undoes_a_later_write_loses_it() -> None:
    assert values([(1, 1, 2), (2, 3, 4)], [], [(1, 1.5), (2, 3.5), (1, 9)]) == Verdict(lost=1, doubled=1)


def test_only_a_strategy_that_writes_later_may_merge_a_write_into_a_later_one() -> None:
    writes = [(1, 1, 2), (2, 3, 4)]
    assert values(writes, [], [(2, 3.5)]) == Verdict(lost=1)
    assert values(writes, [], [(2, 3.5)], later=True) == FINE


def test_a_retry_that_changes_nothing_is_harmless() -> None:
    assert values([(1, 1, 2), (2, 3, 4)], [], [(1, 1.5), (1, 2.5), (2, 3.5), (2, 9)]) == FINE


def test_a_read_that_misses_an_acknowledged_but_lost_write_is_stale() -> None:
    # Only its client knows of 2: a reader that gets 1 after that gets less than was acknowledged.
    assert values([(1, 1, 2), (2, 3, 4)], [(1, 5, 6)], [(1, 1.5)]) == Verdict(
        stale=1, longest_stale=timedelta(seconds=1), lost=1
    )


def test_a_count_below_what_was_acknowledged_before_the_read_is_stale() -> None:
    writes = [(1, 1, 2), (2, 3, 4)]
    assert counts(writes, [(2, 5, 6), (1, 3.5, 6), (2, 3.5, 6)], 2) == FINE
    assert counts(writes, [(0, 5, 6)], 2) == Verdict(stale=1, longest_stale=timedelta(seconds=3))


def test_a_count_above_the_begun_writes_is_uncommitted() -> None:
    assert counts([(1, 1, 2), (2, 3, 4)], [(2, 2, 2.5)], 2) == Verdict(uncommitted=1)


def test_counts_are_lost_and_doubled() -> None:
    writes = [(1, 1, 2), (2, 3, 4), (3, 5, None)]
    assert counts(writes, [], 2) == counts(writes, [], 3) == FINE
    assert counts(writes, [], 1) == Verdict(lost=1)
    assert counts(writes, [], 5) == Verdict(doubled=2)
