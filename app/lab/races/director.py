"""The director of one schedule: whenever nothing moves, it decides which call goes next.

    given     the first choices are given: they repeat the beginning of another schedule
    rule      after that, a running process continues, and another one goes only when it waits or ends
    dice      or chance decides from there on

What can go wrong: a process waits forever. Then the schedule is given up.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

from app.lab.races.gate import Gate, Passage
from app.lab.races.idle_loop import IdleLoop
from app.lab.races.schedule import Point, Schedule
from app.lab.races.stepped_table import SteppedTable
from app.lab.races.turn import Choice, Turn

MOST_FAULTS = 2
SOON = 0.1
"""In seconds. A timer that is due within this time is a poll, and its process may be late for it."""
POLLS = 3
"""A process that has polled this often in vain is waiting for a lease, so the leases expire."""
IN_VAIN = 12
STEPS = 300
AGAIN = 0.6
"""The probability that a random schedule lets the same process continue."""
FAULT = 0.04


class Diverged(Exception):
    """A schedule did not repeat itself. The library's own deadlines run on real time, seconds long: the machine has
    stalled meanwhile."""


class Director:
    """Decides the turns of `schedule`. `lapse` ends every lease; with `dice`, chance decides what is not given."""

    def __init__(
        self,
        schedule: Schedule,
        given: Sequence[Choice],
        dice: random.Random | None,
        *,
        gate: Gate,
        loop: IdleLoop,
        tables: Sequence[SteppedTable],
        lapse: Callable[[], Awaitable[None]],
    ) -> None:
        self._schedule, self._given, self._dice = schedule, given, dice
        self._gate, self._loop, self._tables, self._lapse = gate, loop, tables, lapse
        self._last, self._faults, self._polls, self._in_vain = -1, 0, 0, 0
        self._rested, self._lapsed = True, False
        self._dead: set[int] = set()

    async def direct(self, programs: Sequence["asyncio.Task[None]"]) -> None:
        """Decides until all `programs`, one for each actor, have ended or died, or the schedule is given up."""
        gate, points = self._gate, self._schedule.points
        while True:
            timer = await self._loop.idle(self._is_busy)
            ended = all(task.done() or place in self._dead for place, task in enumerate(programs))
            if not gate.parked and ended:
                return
            if len(points) > STEPS or self._in_vain > IN_VAIN or (not gate.parked and timer is None):
                self._schedule.given_up = True
                return
            options = self._options(timer)
            choice, price = self._choose(options)
            points.append(Point(options, choice, price))
            await self._take(choice, timer)

    def _is_busy(self) -> bool:
        return self._gate.busy

    def _options(self, timer: float | None) -> list[tuple[Choice, int]]:
        """Returns what may happen now, with the price of each. The first option is what happens by default."""
        calls = sorted(self._gate.parked, key=lambda call: (call.actor != self._last, call.actor, call.number))
        if not calls:
            return [(Choice(Turn.WAIT), 0)]
        goes_on = calls[0].actor == self._last
        prices = {call: int(goes_on and call.actor != self._last) for call in calls}
        options = [(Choice(Turn.GO, call.actor, call.number), prices[call]) for call in calls]
        if timer is not None and timer < SOON and self._rested:
            options.append((Choice(Turn.WAIT), 1))
        if self._faults < MOST_FAULTS:
            options += [(Choice(Turn.LOSE, call.actor, call.number), prices[call] + 1) for call in calls]
            # Only the running process may die: one that never moves again may as well have died at once, and one that
            # has not begun is not there.
            if goes_on:
                options.append((Choice(Turn.DIE, self._last), 1))
            if not self._lapsed and any(line.text.startswith(("lookup", "revoke")) for line in self._gate.lines):
                options.append((Choice(Turn.LAPSE), 1))
        return options

    def _choose(self, options: list[tuple[Choice, int]]) -> tuple[Choice, int]:
        place = len(self._schedule.points)
        if place < len(self._given):
            choice, prices = self._given[place], dict(options)
            if choice not in prices:
                raise Diverged(f"A schedule did not repeat itself: {choice} is none of {options}.")
            return choice, prices[choice]
        return options[0] if self._dice is None else self._throw(self._dice, options)

    def _throw(self, dice: random.Random, options: list[tuple[Choice, int]]) -> tuple[Choice, int]:
        same = [option for option in options if option[0].turn is Turn.GO and option[0].actor == self._last]
        goes = [option for option in options if option[0].turn in (Turn.GO, Turn.WAIT)]
        rare = [option for option in options if option not in goes]
        if rare and dice.random() < FAULT:
            return dice.choice(rare)
        return dice.choice(same) if same and dice.random() < AGAIN else dice.choice(goes)

    async def _take(self, choice: Choice, timer: float | None) -> None:
        match choice.turn:
            case Turn.GO | Turn.LOSE:
                self._let_through(choice)
            case Turn.DIE:
                self._faults += 1
                self._dead.add(choice.actor)
                self._gate.crash(choice.actor)
                await self._tables[choice.actor].roll_back()
            case Turn.WAIT:
                self._polls, self._in_vain = self._polls + 1, self._in_vain + (not self._gate.parked)
                self._rested = False
                if self._polls > POLLS:
                    self._polls = 0
                    await self._lapse()
                self._loop.advance((timer or 0.0) + 0.02)
            case Turn.LAPSE:
                self._faults, self._lapsed = self._faults + 1, True
                await self._lapse()

    def _let_through(self, choice: Choice) -> None:
        gate = self._gate
        call = next(call for call in gate.parked if (call.actor, call.number) == (choice.actor, choice.number))
        lost = choice.turn is Turn.LOSE
        self._faults += lost
        call.passage.set_result(Passage.ANSWER_LOST if lost else Passage.CARRIED_OUT)
        self._last, self._rested = choice.actor, True
        self._polls = self._polls if len(gate.parked) == 1 else 0
