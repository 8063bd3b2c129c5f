"""The exact LRU, against the definition."""

from hypothesis import given
from hypothesis import strategies as st

from app.lab.comparison.lru import Lru


@given(st.lists(st.sampled_from("abcdef")), st.integers(1, 5))
def test_it_holds_the_keys_that_were_used_last(keys: list[str], size: int) -> None:
    lru = Lru(size)
    for place, key in enumerate(keys):
        lru.touch(key)
        last = list(dict.fromkeys(reversed(keys[: place + 1])))[:size]
        assert {each for each in "abcdef" if each in lru} == set(last)


def test_it_returns_the_evicted_key() -> None:
    lru = Lru(2)
    assert [lru.touch(key) for key in ("a", "b", "a", "c", "b")] == [None, None, None, "b", "a"]


def test_a_discarded_key_leaves_room() -> None:
    lru = Lru(2)
    lru.touch("a")
    lru.touch("b")
    lru.discard("a")
    lru.discard("unknown")
    assert lru.touch("c") is None
