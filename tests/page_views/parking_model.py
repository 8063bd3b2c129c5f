"""A model of parking: it explores every order of the steps by which one page's views reach its row, with all rules or
without one of them.

Two batches, each with one view of the page, are delivered twice, to flushers that check whether the page is blocked,
and commit later. Somebody locks the row, and releases it. Two processes settle repeatedly, and a reader reads. Any of
them may die between two of its transactions: its next step then never happens.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

LOCKS = 1
"""Number of times that somebody locks the row."""


class Rule(StrEnum):
    """The rules by which each view is in the total once, and reaches its row in the end."""

    RECORDED = "views are parked in the transaction that writes their batch down"
    REMOVED = "what is added to the row is removed from the parked in the same transaction"
    TAKEN = "who settles takes what he adds: another one passes it over"
    SNAPSHOT = "a reader reads the row and what is parked in one snapshot"
    LATE = "what is parked for others that are blocked blocks nobody itself"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt to count a batch: whether it found the page blocked, and how far it has come."""

    blocked: bool | None = None
    recorded: bool = False
    done: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """A state of the model. `parked` says for each parked view whether it blocks the page. `free` says that all views
    were settled, and nobody has found the row locked since. `taken` has the number of views that a settling has read
    before it adds them; `read` has the row as a reader has read it."""

    row: int = 0
    parked: tuple[bool, ...] = ()
    ledger: frozenset[int] = frozenset()
    locked: bool = False
    locks: int = 0
    free: bool = False
    deliveries: tuple[Delivery, ...] = (Delivery(),) * 4
    taken: tuple[int | None, int | None] = (None, None)
    added: int = 0
    read: int | None = None
    wrong: str | None = None

    def with_delivery(self, number: int, delivery: Delivery) -> "State":
        """Returns the same state with one delivery replaced."""
        return replace(self, deliveries=(*self.deliveries[:number], delivery, *self.deliveries[number + 1 :]))


Steps = Iterator[tuple[str, State]]


class ParkingModel:
    """Explores parking without one of its rules, or with all of them."""

    def __init__(self, without: Rule | None = None) -> None:
        self._without = without
        self.states = 0

    def violation(self) -> list[str] | None:
        """Returns the shortest sequence of steps after which a view is lost, doubled, or parked forever; None if there
        is none."""
        ways: dict[State, list[str]] = {State(): []}
        edge = [State()]
        while edge:
            beyond: list[State] = []
            for state in edge:
                for step, after in self._steps(state):
                    if after in ways:
                        continue
                    ways[after] = [*ways[state], step]
                    if (wrong := after.wrong or _wrong(after)) is not None:
                        return [*ways[after], wrong]
                    beyond.append(after)
            edge = beyond
        self.states = len(ways)
        return None

    def _keeps(self, rule: Rule) -> bool:
        return rule is not self._without

    def _steps(self, state: State) -> Steps:
        if state.locked:
            yield "somebody lets the row go", replace(state, locked=False)
        elif state.locks < LOCKS:
            yield "somebody locks the row", replace(state, locked=True, locks=state.locks + 1, free=False)
        for number, delivery in enumerate(state.deliveries):
            if not delivery.done:
                yield from self._deliver(state, number, delivery)
        if state.added:
            yield "who has added removes", replace(state, parked=state.parked[state.added :], added=0)
        if state.parked and not state.locked:
            yield from self._settle(state)
        yield from self._read(state)

    def _deliver(self, state: State, number: int, delivery: Delivery) -> Steps:
        batch = number // 2
        if delivery.blocked is None:
            after = state.with_delivery(number, replace(delivery, blocked=any(state.parked)))
            if any(state.parked) and state.free:
                after = replace(after, wrong="A flush parks, though the row is free and all was settled.")
            yield f"a flush of {batch} looks", after
            return
        done = state.with_delivery(number, replace(delivery, done=True))
        if delivery.recorded:
            yield f"{batch} is parked", replace(done, parked=(*state.parked, True), free=False)
        elif batch in state.ledger:
            yield f"{batch} is counted already", done
        elif delivery.blocked:
            parked = (*state.parked, not self._keeps(Rule.LATE))
            yield f"{batch} is parked behind others", replace(done, parked=parked, ledger=state.ledger | {batch})
        elif not state.locked:
            yield f"{batch} is in the row", replace(done, row=state.row + 1, ledger=state.ledger | {batch})
        elif self._keeps(Rule.RECORDED):
            parked = (*state.parked, True)
            yield f"{batch} is parked", replace(done, parked=parked, ledger=state.ledger | {batch}, free=False)
        else:
            noted = state.with_delivery(number, replace(delivery, recorded=True))
            yield f"{batch} is written down", replace(noted, ledger=state.ledger | {batch})

    def _settle(self, state: State) -> Steps:
        count = len(state.parked)
        if not self._keeps(Rule.REMOVED):
            if not state.added:
                yield "somebody adds", replace(state, row=state.row + count, added=count)
        elif self._keeps(Rule.TAKEN):
            yield "all is settled", replace(state, row=state.row + count, parked=(), free=True)
        else:
            for who, taken in enumerate(state.taken):
                others = list(state.taken)
                others[who] = count if taken is None else None
                after = replace(state, taken=(others[0], others[1]))
                if taken is None:
                    yield f"{who} reads what is parked", after
                else:
                    yield f"{who} settles", replace(after, row=state.row + taken, parked=state.parked[taken:])

    def _read(self, state: State) -> Steps:
        if self._keeps(Rule.SNAPSHOT):
            return  # Each state is one snapshot, and `_wrong` checks it as such.
        if state.read is None:
            yield "a reader reads the row", replace(state, read=state.row)
        elif state.read + len(state.parked) > len(state.ledger):
            yield "a reader adds", replace(state, wrong="A reader counts a view twice.")
        elif state.read + len(state.parked) < state.row:
            yield "a reader adds", replace(state, wrong="A reader misses what is in the row.")


def _wrong(state: State) -> str | None:
    if state.row + len(state.parked) == len(state.ledger):
        return None
    return "A view is in no total, or in one twice."
