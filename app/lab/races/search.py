"""The search for the simplest schedules that fail.

It runs first the schedules without a preemption or fault, then those with one, with two, and so on, so the first that
fails is as simple as possible. The rest of the budget goes to random schedules. (Iterative context bounding: Musuvathi
et al., "Finding and Reproducing Heisenbugs in Concurrent Programs", OSDI 2008.)
"""

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from app.lab.anomaly import Anomaly
from app.lab.races.cases import Case
from app.lab.races.director import Diverged
from app.lab.races.failure import Failure
from app.lab.races.schedule import Schedule
from app.lab.races.stage import Stage
from app.lab.races.turn import Choice

SYSTEMATIC = 0.8
"""The share of the budget for the levels, when they are not exhausted earlier."""
ATTEMPTS = 3
"""The number of attempts for a schedule that does not repeat itself."""


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of a case. All schedules with up to `exhausted` preemptions and faults were run (-1: not even all of
    those with none); `given_up` counts those of the `schedules` that did not end. `failures` has the simplest schedule
    for each anomaly found."""

    case: Case
    schedules: int
    given_up: int
    exhausted: int
    failures: dict[Anomaly, Failure]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a search is: it has run `schedules` of at most `most`, and has `found` these anomalies."""

    schedules: int
    most: int
    found: frozenset[Anomaly]


class Search:
    """Runs at most `most` schedules of a case, for no longer than `budget` from now on, and until `stop` is set. It
    calls `report` after each of them."""

    def __init__(
        self,
        case: Case,
        *,
        budget: timedelta,
        most: int,
        seed: int,
        report: Callable[[Progress], None],
        stop: threading.Event,
    ) -> None:
        self._case, self._most, self._report, self._stop = case, most, report, stop
        self._budget = budget.total_seconds()
        self._deadline = time.monotonic() + self._budget
        self._dice = random.Random(seed)
        self._levels: dict[int, list[tuple[Choice, ...]]] = {0: [()]}
        """The beginnings still to be tried, by their number of preemptions and faults."""
        self._failures: dict[Anomaly, Failure] = {}
        self._count = self._given_up = 0

    async def run(self, stage: Stage) -> Result:
        """Searches. A case that should fail ends with the level on which all its anomalies have been found."""
        await self._run_levels(stage)
        levels = self._levels
        exhausted = next((cost for cost in sorted(levels) if levels[cost]), max(levels) + 1) - 1
        if not self._case.shows:
            while any(levels.values()) and self._goes_on(self._most, 1):
                self._learn(await stage.run((), self._dice))
        return Result(self._case, self._count, self._given_up, exhausted, self._failures)

    async def _run_levels(self, stage: Stage) -> None:
        shows, share, level = self._case.shows, 0.0, 0
        while level <= max(self._levels) and not (shows and shows <= set(self._failures)):
            # Each level gets half of what is left, so that a large level leaves some budget for the less simple ones.
            share += (SYSTEMATIC - share) / 2
            until = self._count + (self._most * SYSTEMATIC - self._count) / 2
            untried = self._levels.setdefault(level, [])
            while untried and self._goes_on(until, share):
                # In random order, so that a level that is not exhausted is sampled evenly.
                place = self._dice.randrange(len(untried))
                untried[place], untried[-1] = untried[-1], untried[place]
                schedule = await _repeated(stage, untried.pop())
                self._learn(schedule)
                for cost, beginning in schedule.alternatives():
                    self._levels.setdefault(cost, []).append(beginning)
            level += 1

    def _goes_on(self, schedules: float, share: float) -> bool:
        in_time = time.monotonic() < self._deadline - self._budget * (1 - share)
        return self._count < schedules and in_time and not self._stop.is_set()

    def _learn(self, schedule: Schedule) -> None:
        self._count, self._given_up = self._count + 1, self._given_up + schedule.given_up
        for failure in schedule.failures:
            best = self._failures.get(failure.anomaly)
            if best is None or failure.size < best.size:
                self._failures[failure.anomaly] = failure
        self._report(Progress(self._count, self._most, frozenset(self._failures)))


async def _repeated(stage: Stage, given: Sequence[Choice]) -> Schedule:
    for _attempt in range(ATTEMPTS - 1):
        try:
            return await stage.run(given)
        except Diverged:
            continue
    return await stage.run(given)
