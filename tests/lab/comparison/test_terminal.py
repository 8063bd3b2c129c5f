"""The table, as terminals of various widths show it."""

import io
import re
from dataclasses import replace
from datetime import timedelta

import pytest
from rich.console import Console

from app.lab.comparison.claims import COLUMNS
from app.lab.comparison.comparison import Comparison
from app.lab.comparison.contestant import CONTESTANTS
from app.lab.comparison.plan import Plan
from app.lab.comparison.terminal import cells, duration, heading, notes, show
from tests.lab.comparison.bills import compared


def shown(comparison: Comparison, width: int) -> str:
    screen = io.StringIO()
    show(comparison, Console(file=screen, width=width, highlight=False, markup=False))
    return screen.getvalue()


def test_each_column_has_a_cell() -> None:
    for bill in compared().bills:
        assert len(cells(bill)) == len(COLUMNS)


def test_a_wide_terminal_has_a_line_for_each_strategy() -> None:
    lines = shown(compared(), 240).splitlines()
    for bill in compared().bills:
        (line,) = [line for line in lines if line.strip().startswith(bill.name + "  ") and "123,456" in line]
        assert re.split(r" {2,}", line.strip()) == [bill.name, *cells(bill)]


@pytest.mark.parametrize("width", [80, 120, 180, 240])
def test_no_figure_is_cut_off(width: int) -> None:
    text = shown(compared(), width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("…") == 1  # It is part of a claim.
    for figure in (
        "87.6%",
        "1 / 7 / 77.7",
        "15 / 105 / 1,166",
        "123,456",
        "1,234,567",
        "12,345 (9.9 s)",
        "2,345",
        "1,234",
        "321",
    ):
        assert figure in text


def test_the_table_of_four_has_the_articles_words_beside_the_measurements() -> None:
    text = shown(compared(), 240)
    assert re.search(r"cache-aside +Low +12,345 \(9\.9 s\) +0 +None added +6 ms +2 ms", text)
    assert re.search(r"write-through +None +12,345 \(9\.9 s\) +0 +Added +9 ms +4 ms", text)


def test_a_note_says_when_the_played_part_is_unlike_the_whole() -> None:
    assert not any("unlike" in note for note in notes(compared(writes=500)))
    first = notes(compared(writes=4_500))[0]
    assert first.startswith("What was played is unlike the whole: 50% of it are reads, and of the trace 10%.")


def test_notes_say_what_has_to_be_known_of_a_run() -> None:
    assert any("--db-latency" in note for note in notes(compared()))
    assert not any("--db-latency" in note for note in notes(compared(plan=Plan(db_latency=timedelta(milliseconds=5)))))
    assert notes(compared(complete=False))[0].startswith("It was interrupted")
    assert notes(compared(plan=Plan(drills=False)))[0].endswith("in the replay.")


def test_durations_are_short() -> None:
    assert [duration(timedelta(seconds=each)) for each in (0.00123, 0.9994, 12.34)] == ["1.23 ms", "999 ms", "12.3 s"]


def test_every_contestant_has_a_line_about_itself() -> None:
    assert all(contestant.about.endswith(".") for contestant in CONTESTANTS)


def test_an_interrupted_run_says_how_much_of_it_was_billed_and_claims_no_drill() -> None:
    comparison = compared(plan=Plan(warm_up=500), complete=False)
    comparison.bills = [replace(bill, contention=None, crash=None) for bill in comparison.bills[:2]]
    told = notes(comparison)
    assert told[0].endswith("Of 3,000 operations 4,000 are in it.")
    assert told[1].endswith("in the replay.")
    assert "To be played: 1,000 reads" in heading(comparison)


def test_a_note_explains_the_slow_reads_of_write_behind() -> None:
    assert any(note.startswith("The slowest reads of write-behind") for note in notes(compared()))
