"""The checker of a failover finds each kind of wrong answer, and accepts right ones."""

import pytest

from tests.histories.identity.state import Found, State
from tests.outages.failover.two_histories import Failover, Read, TwoHistories, Write

KEY = "users/1"
FAILOVER = Failover(dead=10.0, moved=11.0, kept=State({KEY: Found("kept", 5)}, {}, {}))


@pytest.fixture
def histories() -> TwoHistories:
    """A row that was written twice before the standby was cut off, once after it, and once on the new primary."""
    histories = TwoHistories()
    histories.writes[KEY] = {
        "first": Write(0.0, 0.0, 3),
        "kept": Write(1.0, 2.0, 5),
        "lost": Write(8.0, 9.0, 7),
        "in doubt": Write(9.9),
        "new": Write(12.0, 13.0, 6),
    }
    return histories


RIGHT = (
    Read(1.5, 3.0, "kept", 5, "seen before it was answered"),
    Read(9.5, 9.6, "lost", 7, "before the failover"),
    Read(10.2, 10.3, "lost", 7, "while trust lasts"),
    Read(10.2, 11.2, "kept", 5, "began while trust lasted, and was answered by the new primary"),
    Read(11.5, 11.6, "kept", 5, "in the new history"),
    Read(12.5, 12.6, "kept", 5, "before the write was answered"),
    Read(14.0, 14.1, "new", 6, "its version is lower than that of the lost one"),
    Read(14.0, 14.1, "in doubt", 8, "a write without an answer may have reached either"),
)
WRONG = (
    (Read(9.5, 9.6, "kept", 5, ""), "version 7 was answered before"),
    (Read(10.2, 11.2, "first", 3, ""), "version 5 was answered before"),
    (Read(10.5, 10.6, "kept", 5, ""), "no Postgres could verify it"),
    (Read(11.5, 11.6, "lost", 7, ""), "the database has lost that"),
    (Read(14.0, 14.1, "kept", 5, ""), "version 6 was answered before"),
    (Read(14.0, 14.1, "never", 9, ""), "nobody has written that"),
)


@pytest.mark.parametrize("read", RIGHT, ids=lambda read: read.how)
def test_a_right_answer_is_accepted(histories: TwoHistories, read: Read) -> None:
    histories.reads[KEY].append(read)
    assert histories.check(FAILOVER) == []


@pytest.mark.parametrize(("read", "why"), WRONG, ids=[f"{read.name} from {read.began}" for read, _why in WRONG])
def test_a_wrong_answer_is_found(histories: TwoHistories, read: Read, why: str) -> None:
    histories.reads[KEY].append(read)
    found = histories.check(FAILOVER)
    assert found
    assert found[0].endswith(why)


def test_what_was_answered_and_is_not_in_the_new_history_is_lost(histories: TwoHistories) -> None:
    assert histories.lost(FAILOVER) == {KEY: {"lost"}}
