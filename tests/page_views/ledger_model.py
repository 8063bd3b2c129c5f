"""A model of the ledger: it explores every order of the steps that touch the ledger, within bounds, with all rules or
without one of them.

An hour is a number, and so is the time in Postgres. A process accepts one batch, by a clock that may be far behind. The
batch is delivered twice, to two flushers at once or one after the other. A delivery opens the hour of the batch, and
then counts it. Others open hours, one after the other or many at once. Somebody detaches the partition, the clock of
Postgres steps ahead, and old hours are dropped whenever that is possible.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

KEPT, AGE, SOON, HALF = 2, 2, 1, 1
FIRST, OPENED, STEP = 4, 3, 9
"""The time at the beginning, how many hours are opened, and how far Postgres' clock steps."""

AHEAD = 9
"""The hour that a process with a clock far ahead opens."""
NOTHING = 0, FIRST, 0


class Rule(StrEnum):
    """The rules by which no batch is counted twice, and none becomes dead letters because of a clock."""

    FLOOR = "the floor is raised with the drop"
    LOCKED = "who opens an hour looks at the floor under the lock under which hours are dropped"
    ATTACHED = "a detached partition is attached again"
    RECORDED = "what is below the floor is set aside once"
    COUNT = "an hour is dropped only when so many were opened after it"
    TIME = "an hour is dropped only when so much time has gone since the next was opened"
    NEXT = "that time begins when the next hour is opened, not the hour itself"
    ORDER = "an hour is dropped only when all before it are"
    IDS = "ids are not made below what is kept"
    HALFWAY = "ids are made above what is kept for half of the time yet, not above the floor alone"


@dataclass(frozen=True, slots=True)
class Hour:
    """A partition, and whether it has the batch."""

    hour: int
    created_at: int
    attached: bool = True
    has: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """The accepted batch, and the states of its two deliveries: 0 not begun, 1 above the floor, 2 opened, 3 done.
    `learned` is what the process knew when it made the id: the time of Postgres, and the number of opened hours."""

    hour: int
    learned: tuple[int, int]
    deliveries: tuple[int, int] = (0, 0)
    counted: int = 0
    letters: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """A state of the model. `hours` are in the order in which they were opened. `learned` is what the process knows:
    the least hour for an id, the time when it learned that, and the number of hours opened by then."""

    now: int = FIRST
    stepped: bool = False
    detached: bool = False
    opened: int = 0
    floor: int = 0
    hours: tuple[Hour, ...] = ()
    learned: tuple[int, int, int] = NOTHING
    batch: Batch | None = None
    set_aside: bool = False

    @property
    def clock(self) -> int:
        """The time of Postgres' clock."""
        return self.now + STEP * self.stepped


Steps = Iterator[tuple[str, State]]


class LedgerModel:
    """Explores the ledger without one of its rules, or with all of them. The clock of the process is `behind` hours
    behind, and at most `passing` hours pass."""

    def __init__(self, behind: int, passing: int, without: Rule | None = None) -> None:
        self._behind, self._passing, self._without = behind, passing, without
        self.states = 0

    def violation(self) -> list[str] | None:
        """Returns the shortest sequence of steps after which a batch is counted twice or becomes dead letters too
        early; None if there is none."""
        start = State()
        came: dict[State, tuple[State, str] | None] = {start: None}
        edge = [start]
        while edge:
            beyond: list[State] = []
            for state in edge:
                for step, after in self._steps(state):
                    if after in came:
                        continue
                    came[after] = state, step
                    if (wrong := _wrong(after)) is not None:
                        return [*_way(came, after), wrong]
                    beyond.append(after)
            edge = beyond
        self.states = len(came)
        return None

    def _keeps(self, rule: Rule) -> bool:
        return rule is not self._without

    def _steps(self, state: State) -> Steps:
        if state.now < FIRST + self._passing:
            yield "an hour goes by", replace(state, now=state.now + 1)
        if not state.stepped:
            yield "Postgres' clock steps ahead", replace(state, stepped=True)
        if state.opened < OPENED:
            newest = max((each.hour for each in state.hours), default=0)
            for hour in {state.now, newest + 1, AHEAD}:
                if hour >= state.floor and _place(state, hour) is None:
                    yield f"others open {hour}", _opened(state, hour)
        for hour in self._oldest(state, soon=False):
            kept = tuple(each for each in state.hours if each.hour != hour)
            floor = max(state.floor, hour + 1) if self._keeps(Rule.FLOOR) else state.floor
            yield f"{hour} is dropped", replace(state, hours=kept, floor=floor)
            if self._keeps(Rule.ORDER):
                break  # The others follow later.
        if state.batch is None:
            yield from self._take(state)
            return
        for delivery in (0, 1):
            yield from self._deliver(state, state.batch, delivery)
        place = _place(state, state.batch.hour)
        if not state.detached and place is not None:
            yield "somebody detaches it", replace(_put(state, place, attached=False), detached=True)

    def _take(self, state: State) -> Steps:
        least = max(state.floor, max(self._oldest(state, soon=True), default=-1) + 1)
        if not self._keeps(Rule.HALFWAY):
            least = state.floor
        known = least, state.clock, state.opened
        if known != state.learned:
            yield f"the process learns {least}", replace(state, learned=known)
        least, when, opened = state.learned
        hour = state.now - self._behind
        if self._keeps(Rule.IDS):
            hour = max(hour, least)
        yield (
            f"the process takes a batch of {hour} on",
            replace(state, batch=Batch(hour, (when, opened)), learned=NOTHING),
        )

    def _deliver(self, state: State, batch: Batch, delivery: int) -> Steps:
        def went(to: int) -> Batch:
            # Sorted, because it makes no difference which flusher has come how far.
            first, second = sorted((to, batch.deliveries[1 - delivery]))
            return replace(batch, deliveries=(first, second))

        at, place = batch.deliveries[delivery], _place(state, batch.hour)
        if at == 0 and batch.hour < state.floor:
            new = not (state.set_aside and self._keeps(Rule.RECORDED))
            done = replace(went(3), letters=batch.letters + new)
            yield "a flusher sets it aside", replace(state, batch=done, set_aside=True)
        elif at == 0 and not self._keeps(Rule.LOCKED):
            yield "a flusher finds it above the floor", replace(state, batch=went(1))
        elif at in (0, 1):
            after = state
            if place is None:
                after = _opened(state, batch.hour)
            elif not state.hours[place].attached:
                after = _put(state, place, attached=True, has=state.hours[place].has and self._keeps(Rule.ATTACHED))
            yield "a flusher opens its hour", replace(after, batch=went(2))
        elif at == 2 and (place is None or not state.hours[place].attached):
            yield "a flusher finds no partition", replace(state, batch=went(0))
        elif at == 2 and place is not None:
            done = replace(went(3), counted=batch.counted + (not state.hours[place].has))
            yield "a flusher counts it", replace(_put(state, place, has=True), batch=done)

    def _oldest(self, state: State, *, soon: bool) -> list[int]:
        """Returns the hours that may be dropped, in order; or, with `soon`, those that have reached half of their
        life."""
        doomed = []
        for hour, place in sorted((each.hour, place) for place, each in enumerate(state.hours)):
            newer = len(state.hours) - 1 - place
            gone = state.clock - state.hours[place + self._keeps(Rule.NEXT)].created_at if newer else -1
            if soon:
                judged = newer >= SOON or gone > HALF
            else:
                judged = (newer >= KEPT or not self._keeps(Rule.COUNT)) and (gone > AGE or not self._keeps(Rule.TIME))
            if newer and judged:
                doomed.append(hour)
            elif soon or self._keeps(Rule.ORDER):
                break
        return doomed


def _wrong(state: State) -> str | None:
    batch = state.batch
    if batch is None:
        return None
    if batch.counted > 1:
        return "It is counted twice."
    if batch.letters > 1:
        return "It becomes dead letters twice."
    when, opened = batch.learned
    # It is not too early only when both have passed: half of the time, and half of the hours.
    early = state.clock - when <= AGE - HALF or state.opened - opened <= KEPT - SOON
    return "It becomes dead letters too early." if batch.letters and early else None


def _way(came: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    steps: list[str] = []
    while (before := came[state]) is not None:
        state, step = before
        steps.append(step)
    return steps[::-1]


def _place(state: State, hour: int) -> int | None:
    return next((place for place, each in enumerate(state.hours) if each.hour == hour), None)


def _opened(state: State, hour: int) -> State:
    return replace(state, hours=(*state.hours, Hour(hour, state.clock)), opened=state.opened + 1)


def _put(state: State, place: int, **what: bool) -> State:
    hour: Hour = replace(state.hours[place], **what)
    return replace(state, hours=(*state.hours[:place], hour, *state.hours[place + 1 :]))
