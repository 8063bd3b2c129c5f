"""Decides whether a history of one SKU is linearizable: whether there is an order of its operations, each at one moment
between its start and its end, in which every answer is what a single counter would have said.

The search is that of Wing and Gong, with the memory of Lowe, as in Porcupine: depth first over the operations that may
come next, and no combination of completed operations and state is visited twice. It is exponential in the operations
that overlap, and in those of unknown outcome, so it has a deadline.

Versions make it stricter, because they identify the write that a read has seen. A version may only rise while a row
lives; nothing is required of it across DELETE and creation.
"""

import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import StrEnum
from math import inf
from typing import NamedTuple

from tests.histories.linearizability.operation import Answer, Kind, Operation

CONTEXT = 16
"""How many operations of the failing prefix are shown."""


class Verdict(StrEnum):
    """The result of a check."""

    LINEARIZABLE = "linearizable"
    NOT_LINEARIZABLE = "not linearizable"
    UNDECIDED = "undecided"


class Stock(NamedTuple):
    """The row. Unless the version is `exact`, the row's version is only known to be higher."""

    quantity: int
    version: int = 0
    exact: bool = False


State = Stock | None


def check(history: Iterable[Operation], *, seconds: float, initial: State = None) -> Verdict:
    """Decides whether a history that began with `initial` is linearizable, within the time limit."""
    operations = sorted((one for one in history if not _says_nothing(one)), key=lambda one: one.start)
    answered = sum(1 << place for place, one in enumerate(operations) if one.answer is not None)
    deadline = time.monotonic() + seconds
    seen: set[tuple[int, State]] = set()
    stack: list[tuple[int, State]] = [(0, initial)]
    while stack:
        done, state = stack.pop()
        if done & answered == answered:
            return Verdict.LINEARIZABLE
        if (done, state) not in seen:
            seen.add((done, state))
            stack += _next(operations, done, state)
            if time.monotonic() > deadline:
                return Verdict.UNDECIDED
    return Verdict.NOT_LINEARIZABLE


def explain(history: Sequence[Operation], *, seconds: float, initial: State = None) -> str:
    """Returns the shortest prefix of a history that no order explains, in readable form."""
    ends = sorted(one.end for one in history if one.answer is not None)

    def fails(end: float) -> bool:
        return check(_until(history, end), seconds=seconds, initial=initial) is Verdict.NOT_LINEARIZABLE

    place = bisect_left(ends, True, key=fails)
    if place == len(ends):
        return "Every beginning of it that could be decided is linearizable."
    began = min(one.start for one in history)
    prefix = sorted(_until(history, ends[place]), key=lambda one: one.start)
    lines = [f"No order explains the last answer of these operations, marked with >>> ({len(prefix)} began before it):"]
    for one in prefix[-CONTEXT:]:
        end = "  later" if one.end == inf else f"{(one.end - began) * 1000:7.1f}"
        mark = ">>>" if one.end == ends[place] else "   "
        lines.append(f"{mark} {(one.start - began) * 1000:7.1f} to {end} ms  {one}")
    return "\n".join(lines)


def _until(history: Iterable[Operation], end: float) -> list[Operation]:
    """Returns what was known at that moment: an operation without an answer by then may have happened, or not."""
    begun = [one for one in history if one.start <= end]
    return [one if one.end <= end else replace(one, end=inf, answer=None) for one in begun]


def _says_nothing(operation: Operation) -> bool:
    return operation.kind is Kind.READ and operation.answer is None


def _next(operations: Sequence[Operation], done: int, state: State) -> list[tuple[int, State]]:
    """Returns what may come next. The operation that ended first is last in the list."""
    horizon, following = inf, []
    first = (~done & (done + 1)).bit_length() - 1
    for place in range(first, len(operations)):
        operation = operations[place]
        # Operations are sorted by start: this one and all later ones began after the end of one that is not done yet.
        if operation.start > horizon:
            break
        if done >> place & 1:
            continue
        horizon = min(horizon, operation.end)
        for after in _after(state, operation):
            if after != state:
                following.append((operation.end, place, after))
            elif operation.answer is not None:
                # What fits now and changes nothing can come now, whatever order the others need: the only branch.
                return [(done | 1 << place, state)]
    following.sort(key=lambda one: one[:2], reverse=True)
    return [(done | 1 << place, after) for _end, place, after in following]


def _after(state: State, operation: Operation) -> tuple[State, ...]:
    """Returns the state after an operation with that answer; nothing if this state cannot have given that answer."""
    answer = operation.answer
    if answer is None:
        return (_unanswered(state, operation),)
    if state is None:
        if operation.kind is Kind.PUT and (answer.status, answer.quantity) == (201, operation.argument):
            return (_written(operation.argument, answer, 0),)
        return (None,) if operation.kind is not Kind.PUT and answer.status == 404 else ()
    match operation.kind, answer.status:
        case Kind.READ, 200 if answer.quantity == state.quantity and _fits(answer.version, state):
            return (state if answer.version is None else Stock(state.quantity, answer.version, exact=True),)
        case Kind.PUT, 200 if answer.quantity == operation.argument and _rises(answer.version, state):
            return (_written(operation.argument, answer, state.version),)
        case Kind.ADJUST, 200 if answer.quantity == state.quantity + operation.argument >= 0 and _rises(
            answer.version, state
        ):
            return (_written(answer.quantity, answer, state.version),)
        case Kind.ADJUST, 409 if answer.available == state.quantity and state.quantity + operation.argument < 0:
            return (state,)
        case Kind.DELETE, 204:
            return (None,)
    return ()


def _unanswered(state: State, operation: Operation) -> State:
    version = 0 if state is None else state.version
    match operation.kind:
        case Kind.PUT:
            return Stock(operation.argument, version)
        case Kind.ADJUST if state is not None and state.quantity + operation.argument >= 0:
            return Stock(state.quantity + operation.argument, version)
        case Kind.DELETE:
            return None
    return state


def _written(quantity: int, answer: Answer, before: int) -> Stock:
    return Stock(quantity, before) if answer.version is None else Stock(quantity, answer.version, exact=True)


def _fits(version: int | None, state: Stock) -> bool:
    return version is None or (version == state.version if state.exact else version > state.version)


def _rises(version: int | None, state: Stock) -> bool:
    return version is None or version > state.version
