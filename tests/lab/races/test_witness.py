"""The anomalies that the witness finds in a schedule."""

from app.lab.anomaly import Anomaly
from app.lab.races.witness import Witness
from app.lab.strategy import Holds


def test_a_read_may_return_either_value_while_the_write_is_in_flight() -> None:
    witness = Witness(Holds.VALUES, behind=False)
    floor = witness.floor
    witness.begins(1)
    witness.commits(1, 2)
    witness.acknowledges(1)
    witness.answers(0, floor)
    witness.answers(1, witness.floor)
    witness.ends(1, 1)
    assert not witness.found


def test_an_old_number_after_the_acknowledgement_is_stale() -> None:
    witness = Witness(Holds.VALUES, behind=False)
    witness.begins(1)
    witness.commits(1, 2)
    witness.acknowledges(1)
    witness.answers(0, witness.floor)
    assert set(witness.found) == {Anomaly.STALE}


def test_the_database_decides_which_of_two_values_is_older() -> None:
    witness = Witness(Holds.VALUES, behind=False)
    for value, version in ((2, 2), (1, 3)):
        witness.commits(value, version)
        witness.acknowledges(value)
    witness.answers(1, witness.floor)
    assert not witness.found
    witness.answers(2, witness.floor)
    assert set(witness.found) == {Anomaly.STALE}


def test_a_value_not_in_the_database_is_uncommitted_unless_writes_come_later() -> None:
    for behind in (False, True):
        witness = Witness(Holds.VALUES, behind)
        witness.begins(1)
        witness.answers(1, witness.floor)
        assert set(witness.found) == (set() if behind else {Anomaly.UNCOMMITTED})


def test_a_count_that_never_arrives_is_lost_and_one_that_arrives_twice_is_doubled() -> None:
    for database, found in ((0, {Anomaly.LOST}), (1, set()), (2, set()), (3, {Anomaly.DOUBLED})):
        witness = Witness(Holds.COUNTS, behind=True)
        witness.begins(1)
        witness.begins(2)  # In doubt: it may count or not.
        witness.acknowledges(1)
        witness.ends(database, database)
        assert set(witness.found) == found


def test_an_acknowledged_but_uncommitted_write_is_lost() -> None:
    witness = Witness(Holds.VALUES, behind=False)
    witness.begins(1)
    witness.acknowledges(1)
    assert set(witness.found) == {Anomaly.LOST}


def test_an_older_final_value_in_the_database_is_a_loss() -> None:
    witness = Witness(Holds.VALUES, behind=True)
    for value in (1, 2):
        witness.begins(value)
        witness.acknowledges(value)
    witness.ends(1, 2)
    assert set(witness.found) == {Anomaly.LOST}


def test_stores_that_differ_at_the_end_are_reported() -> None:
    for read, found in ((0, Anomaly.STALE), (2, Anomaly.UNCOMMITTED)):
        witness = Witness(Holds.VALUES, behind=False)
        witness.commits(1, 2)
        witness.ends(1, read)
        assert set(witness.found) == {found}
