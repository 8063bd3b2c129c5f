"""The view: who holds which slot, as one text."""

import pytest

from app.caching.cluster.slot_map import SLOTS
from app.coherence.holders.view import View

X, Y = "a" * 40, "b" * 40


def test_a_view_is_read_as_it_was_written() -> None:
    view = View([X] * 5 + [Y] + [None] * 2 + [X] * (SLOTS - 8), {X: 3})
    text = str(view)
    assert text == f"cluster {X}/3 0-4,8-{SLOTS - 1} | {Y}/0 5"
    again = View.read(text)
    assert again is not None
    assert list(again.holders) == list(view.holders)
    assert again.terms[X] == 3
    assert str(again) == text


def test_a_node_without_slots_keeps_its_term() -> None:
    view = View.read(str(View([Y] * SLOTS, {X: 2, Y: 2})))
    assert view is not None
    assert view.terms == {X: 2, Y: 2}
    assert set(view.holders) == {Y}


@pytest.mark.parametrize(
    "text",
    [
        "1f2e3d4c-5b6a7988",
        "",
        "cluster",
        "cluster ",
        f"cluster {X} 0-5",
        f"cluster {X}/0 0-{SLOTS}",
        f"cluster {X}/0 5-1",
    ],
)
def test_what_is_no_view_is_not_read_as_one(text: str) -> None:
    assert View.read(text) is None
