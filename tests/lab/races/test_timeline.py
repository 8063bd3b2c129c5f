"""A schedule in columns."""

from app.lab.races.gate import Line
from app.lab.races.timeline import WIDTH, timeline

TOLD = """\
reader           writer
GET k → nothing
                 UPDATE to 1 → 1
          — 3 s pass —
SET k 0"""


def test_each_process_has_a_column() -> None:
    lines = [Line(0, "GET k → nothing"), Line(1, "UPDATE to 1 → 1"), Line(None, "3 s pass"), Line(0, "SET k 0")]
    assert [line.strip() for line in timeline(["reader", "writer"], lines).splitlines()] == [
        line.strip() for line in TOLD.splitlines()
    ]


def test_a_process_that_did_nothing_has_no_column() -> None:
    assert timeline(["reader", "writer"], [Line(1, "UPDATE")]) == "writer\nUPDATE"


def test_no_line_is_longer_than_the_page() -> None:
    lines = [Line(place, " ".join(["word"] * 50)) for place in range(4)]
    assert max(map(len, timeline(["a", "b", "c", "d"], lines).splitlines())) <= WIDTH


def test_three_processes_fit_a_terminal_of_80_columns() -> None:
    lines = [Line(place, "LPOP queue 100 → nothing") for place in range(3)]
    assert max(map(len, timeline(["reader", "writer", "flusher"], lines).splitlines())) <= 80
