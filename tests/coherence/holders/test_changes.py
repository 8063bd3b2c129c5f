"""Which slots get another holder: the rules of the model, on the slots of whole nodes."""

from collections.abc import Mapping

from app.caching.cluster.slot_map import SLOTS
from app.coherence.holders.changes import Changes, takes_from
from app.coherence.holders.view import View
from app.coherence.holders.word import Word

X, Y, Z = "a" * 40, "b" * 40, "c" * 40
LAST = SLOTS - 1


def word(id_: str, slots: str, *, epoch: int = 1, is_primary: bool = True, works: bool = True) -> Word:
    return Word(id_, "0" * 40, is_primary, works, epoch, slots)


def between(words: Mapping[str, Word], terms: Mapping[str, int] | None = None) -> Changes:
    """X holds the first half, Y the second."""
    return Changes.between(View([X] * 8192 + [Y] * 8192, terms or {}), words, {})


def test_a_holder_that_says_that_it_owns_its_slots_is_believed_about_them() -> None:
    changes = between({X: word(X, "0-8191"), Y: word(Y, f"8192-{LAST}")})
    assert changes.believed == [X] * 8192 + [Y] * 8192
    assert changes.handed is None
    assert not changes.claims


def test_a_slot_that_its_holder_has_given_away_is_handed_over_at_once() -> None:
    changes = between({X: word(X, "1-8191"), Y: word(Y, f"0 8192-{LAST}", epoch=2)})
    assert changes.believed[0] is None
    assert changes.handed is not None
    assert changes.handed.holders[:2] == [Y, X]
    assert not changes.handed.terms
    assert not changes.claims


def test_a_slot_on_its_way_stays_with_its_holder() -> None:
    changes = between({X: word(X, f"0-8191 [0->-{Y}]"), Y: word(Y, f"8192-{LAST} [0-<-{X}]")})
    assert changes.believed[0] == X
    assert changes.handed is None


def test_slots_of_a_silent_holder_are_claimed_once_another_node_owns_them() -> None:
    alone = {Y: word(Y, f"8192-{LAST}")}
    assert not between(alone).claims
    changes = between({**alone, Z: word(Z, "0-8191", epoch=5)}, {Y: 4})
    assert changes.believed == [None] * 8192 + [Y] * 8192
    assert changes.handed is None
    claimed = changes.claims[X]
    assert claimed.holders == [Z] * 8192 + [Y] * 8192
    assert claimed.terms == {X: 5, Y: 4, Z: 5}, "Both begin a new term, and no other node does."


def test_slots_of_a_replica_are_claimed_and_not_handed_over() -> None:
    changes = between({X: word(X, "", is_primary=False), Y: word(Y, f"8192-{LAST}"), Z: word(Z, "0-8191")})
    assert changes.handed is None
    assert set(changes.claims) == {X}


def test_a_holder_that_is_cut_off_from_its_cluster_counts_as_silent() -> None:
    changes = between({X: word(X, "0-8191", works=False), Y: word(Y, f"8192-{LAST}"), Z: word(Z, "0-8191", epoch=2)})
    assert changes.believed[0] is None
    assert set(changes.claims) == {X}


def test_the_holder_is_believed_although_another_node_with_a_newer_configuration_owns_the_slot() -> None:
    changes = between({X: word(X, "0-8191"), Y: word(Y, f"8192-{LAST}"), Z: word(Z, "0-8191", epoch=9)})
    assert changes.believed[0] == X
    assert not changes.claims


def test_a_holder_whose_answer_is_late_is_neither_given_up_nor_asked_for_its_slots() -> None:
    view = View([X] * 8192 + [Y] * 8192, {})
    words = {Y: word(Y, f"8192-{LAST}"), Z: word(Z, "0-8191", epoch=9)}
    changes = Changes.between(view, words, {X: word(X, "1-8191")})
    assert changes.believed == [None] + [X] * 8191 + [Y] * 8192
    assert changes.handed is None
    assert not changes.claims


def test_a_slot_without_a_holder_goes_to_its_owner_at_once() -> None:
    changes = Changes.between(View([None] * SLOTS, {}), {Y: word(Y, f"0-{LAST}")}, {})
    assert changes.handed is not None
    assert set(changes.handed.holders) == {Y}


def test_a_claim_takes_what_gets_another_holder() -> None:
    view = View([X] * 8192 + [None] * 8192, {})
    assert takes_from(view, View([X] * 8190 + [Y] * 8194, {})) == {8190, 8191}
