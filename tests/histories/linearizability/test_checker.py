"""The checker itself: what it accepts, what it rejects, and that it agrees with a search through all orders."""

import random
from dataclasses import replace
from itertools import combinations, pairwise, permutations
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.histories.linearizability.checker import State, Stock, Verdict, check, explain
from tests.histories.linearizability.operation import Answer, Kind, Operation

SECONDS = 20.0
START = Stock(30)


def read(start: float, end: float, quantity: int | None, version: int | None = None) -> Operation:
    answer = Answer(404) if quantity is None else Answer(200, quantity, version)
    return Operation(Kind.READ, 0, start, end, answer)


def put(start: float, end: float, quantity: int, status: int = 200, version: int | None = None) -> Operation:
    return Operation(Kind.PUT, quantity, start, end, Answer(status, quantity, version))


def adjust(start: float, end: float, delta: int, quantity: int, version: int | None = None) -> Operation:
    return Operation(Kind.ADJUST, delta, start, end, Answer(200, quantity, version))


def refused(start: float, end: float, delta: int, available: int) -> Operation:
    return Operation(Kind.ADJUST, delta, start, end, Answer(409, available=available))


def delete(start: float, end: float, status: int = 204) -> Operation:
    return Operation(Kind.DELETE, 0, start, end, Answer(status))


def unknown(start: float, kind: Kind, argument: int = 0) -> Operation:
    return Operation(kind, argument, start)


GOOD = {
    "one after the other": [read(0, 1, 30), adjust(2, 3, -1, 29), read(4, 5, 29), put(6, 7, 5), read(8, 9, 5)],
    "a read during a write sees either": [put(0, 10, 5), read(1, 2, 30), read(3, 4, 5)],
    "two adjustments at once": [adjust(0, 10, -1, 28), adjust(0, 10, -1, 29), read(11, 12, 28)],
    "a refusal says what there is": [refused(0, 1, -31, 30), refused(2, 3, -40, 30)],
    "removed and created again": [delete(0, 1), read(2, 3, None), delete(4, 5, 404), put(6, 7, 9, 201), read(8, 9, 9)],
    "unknown, and it happened late": [unknown(0, Kind.PUT, 7), read(1, 2, 30), read(3, 4, 7)],
    "unknown, and it never happened": [unknown(0, Kind.PUT, 7), read(1, 2, 30), adjust(3, 4, 1, 31), read(5, 6, 31)],
    "unknown, and seen only by its sum": [unknown(0, Kind.ADJUST, -5), adjust(1, 2, -1, 24), read(3, 4, 24)],
    "unknown, and removed what was there": [unknown(0, Kind.DELETE), read(1, 2, 30), put(3, 4, 2, 201)],
    "an unknown read says nothing": [unknown(0, Kind.READ), put(1, 2, 3), read(3, 4, 3)],
    "versions that follow the writes": [put(0, 1, 5, version=8), read(2, 3, 5, 8), adjust(4, 5, 1, 6, 9)],
    "a lower version after a removal": [put(0, 1, 5, version=8), delete(2, 3), put(4, 5, 6, 201, 7), read(6, 7, 6, 7)],
    "a version that only a read tells": [unknown(0, Kind.PUT, 5), read(1, 2, 5, 8), read(3, 4, 5, 8)],
}

BAD = {
    "a stale read after a write was answered": [put(0, 1, 5), read(2, 3, 30)],
    "a lost update": [adjust(0, 10, -1, 29), adjust(0, 10, -1, 29)],
    "a lost update that only a read shows": [adjust(0, 1, -1, 29), put(2, 3, 30), read(4, 5, 29)],
    "a value that was never written": [put(0, 10, 5), read(1, 2, 6)],
    "a read that goes back": [put(0, 10, 5), read(1, 2, 5), read(3, 4, 30)],
    "a read that goes back, of an unknown write": [unknown(0, Kind.PUT, 5), read(1, 2, 5), read(3, 4, 30)],
    "a refusal that says something else": [refused(0, 1, -31, 29)],
    "a refusal of what there is": [refused(0, 1, -30, 30)],
    "fewer than none": [adjust(0, 1, -31, -1)],
    "removed, and read": [delete(0, 1), read(2, 3, 30)],
    "removed twice": [delete(0, 1), delete(2, 3)],
    "created twice": [put(0, 1, 5, 201)],
    "set, though there was none": [delete(0, 1), put(2, 3, 5, 200)],
    "an unknown write that happened twice": [unknown(0, Kind.ADJUST, -5), read(1, 2, 25), read(3, 4, 20)],
    "an unknown write before its start": [read(0, 1, 7), unknown(2, Kind.PUT, 7)],
    "one version with two quantities": [unknown(0, Kind.ADJUST, 1), read(1, 2, 30, 8), read(3, 4, 31, 8)],
    "the version of another write": [put(0, 1, 5, version=8), put(2, 3, 5, version=9), read(4, 5, 5, 8)],
    "a version that falls": [put(0, 1, 5, version=8), put(2, 3, 6, version=7)],
}


@pytest.mark.parametrize("name", GOOD)
def test_answers_that_one_counter_could_give_are_accepted(name: str) -> None:
    assert check(GOOD[name], seconds=SECONDS, initial=START) is Verdict.LINEARIZABLE


@pytest.mark.parametrize("name", BAD)
def test_answers_that_no_counter_could_give_are_rejected(name: str) -> None:
    assert check(BAD[name], seconds=SECONDS, initial=START) is Verdict.NOT_LINEARIZABLE


def test_the_report_ends_with_the_impossible_answer() -> None:
    history = [put(0, 0.001, 5), adjust(0.001, 0.006, 1, 6), read(0.002, 0.003, 30), read(0.007, 0.008, 6)]
    assert explain(history, seconds=SECONDS, initial=START).splitlines() == [
        "No order explains the last answer of these operations, marked with >>> (3 began before it):",
        "        0.0 to     1.0 ms  put 5 → 200 5",
        "        1.0 to   later ms  adjust +1 → ?",
        ">>>     2.0 to     3.0 ms  read → 200 30",
    ]


def test_a_check_that_runs_out_of_time_is_undecided() -> None:
    unknowns = [unknown(0, Kind.ADJUST, 1 << place) for place in range(40)]
    assert check([*unknowns, read(1, 2, 1 << 41)], seconds=0.05, initial=START) is Verdict.UNDECIDED


def test_a_hundred_operations_of_which_eight_overlap_are_decided() -> None:
    history = _history(random.Random(1), operations=100, overlap=8.0)
    assert check(history, seconds=SECONDS, initial=START) is Verdict.LINEARIZABLE


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 25), st.floats(0, 5))
def test_every_random_history_of_one_counter_is_accepted(
    randomness: random.Random, operations: int, overlap: float
) -> None:
    history = _history(randomness, operations=operations, overlap=overlap)
    assert check(history, seconds=SECONDS, initial=START) is Verdict.LINEARIZABLE


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 5), st.floats(0, 3), st.booleans())
def test_the_checker_agrees_with_a_search_through_all_orders(
    randomness: random.Random, operations: int, overlap: float, corrupted: bool
) -> None:
    history = _history(randomness, operations=operations, overlap=overlap)
    if corrupted:
        history = _corrupted(randomness, history)
    expected = Verdict.LINEARIZABLE if _some_order_explains(history) else Verdict.NOT_LINEARIZABLE
    assert check(history, seconds=SECONDS, initial=START) is expected


def _history(randomness: random.Random, *, operations: int, overlap: float) -> list[Operation]:
    """Returns answers of one counter, each from within its operation; some of the answers are lost."""
    state: State = Stock(START.quantity, version=1)
    history = []
    for moment in range(operations):
        kind = randomness.choice(list(Kind))
        argument = randomness.randint(-40, 40) or 1 if kind is Kind.ADJUST else randomness.randint(0, 40)
        start, end = moment - randomness.uniform(0, overlap), moment + randomness.uniform(0, overlap)
        lost = randomness.random() < 0.1
        if lost and randomness.random() < 0.5:
            history.append(Operation(kind, argument, start))
            continue
        state, answer = _counter(state, kind, argument, version=moment + 2)
        history.append(Operation(kind, argument, start, inf if lost else end, None if lost else answer))
    return history


def _corrupted(randomness: random.Random, history: list[Operation]) -> list[Operation]:
    """Returns the history with another answer in one place."""
    place = randomness.randrange(len(history))
    answer = history[place].answer
    if answer is None:
        return history
    by = randomness.choice([-1, 1])
    wrongs = [Answer(404), Answer(204)]
    if answer.quantity is not None and answer.version is not None:
        wrongs += [replace(answer, quantity=answer.quantity + by), replace(answer, version=answer.version + by)]
    if answer.available is not None:
        wrongs += [replace(answer, available=answer.available + by)]
    wrong = randomness.choice(wrongs)
    return [*history[:place], replace(history[place], answer=wrong), *history[place + 1 :]]


def _some_order_explains(history: list[Operation]) -> bool:
    """Tries every order of the answered operations, with any of the others among them."""
    answered = [one for one in history if one.answer is not None]
    others = [one for one in history if one.answer is None]
    return any(
        _keeps_time(order) and _explains(order)
        for number in range(len(others) + 1)
        for some in combinations(others, number)
        for order in permutations([*answered, *some])
    )


def _keeps_time(order: tuple[Operation, ...]) -> bool:
    return all(later.end >= sooner.start for sooner, later in combinations(order, 2))


def _explains(order: tuple[Operation, ...]) -> bool:
    """Runs the operations on one counter. It uses the versions of the answers, and any version where there is none."""
    state: State = START
    versions: list[int | None] = [START.version, None]
    for one in order:
        before = state
        state, answer = _counter(state, one.kind, one.argument, version=0)
        told = None if one.answer is None else one.answer.version
        if one.answer is not None and replace(answer, version=told) != one.answer:
            return False
        if one.kind is Kind.PUT and before is None:
            versions = [START.version, told]
        elif one.kind is not Kind.READ and answer.status == 200:
            versions.append(told)
        elif told is not None:
            if versions[-1] not in (None, told):
                return False
            versions[-1] = told
        if not all(sooner < later for sooner, later in pairwise(one for one in versions if one is not None)):
            return False
    return True


def _counter(state: State, kind: Kind, argument: int, version: int) -> tuple[State, Answer]:
    """Returns what one counter becomes, and answers."""
    if kind is Kind.PUT:
        return Stock(argument, version), Answer(201 if state is None else 200, argument, version)
    if state is None:
        return None, Answer(404)
    if kind is Kind.READ:
        return state, Answer(200, state.quantity, state.version)
    if kind is Kind.DELETE:
        return None, Answer(204)
    if state.quantity + argument < 0:
        return state, Answer(409, available=state.quantity)
    return Stock(state.quantity + argument, version), Answer(200, state.quantity + argument, version)
