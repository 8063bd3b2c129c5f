"""The gate before every call to Redis and to the database: each call parks until the schedule decides which goes next.

    open        during setup and the final check: calls pass
    watched     each call parks; then it is let through, or carried out with its answer lost, or its process dies first
    over        the schedule has ended: each call is cancelled

What can go wrong: a call that bypasses the gate is no step, so no schedule can order it.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeVar

T = TypeVar("T")


class Passage(Enum):
    """What happens to a call."""

    CARRIED_OUT = auto()
    ANSWER_LOST = auto()


class Phase(Enum):
    """Whether calls park."""

    OPEN = auto()
    WATCHED = auto()
    OVER = auto()


@dataclass(frozen=True, slots=True, eq=False)
class Parked:
    """A call that waits at the gate: its actor's `number`-th."""

    actor: int
    number: int
    text: str
    passage: "asyncio.Future[Passage]"


@dataclass(frozen=True, slots=True)
class Line:
    """What an actor did; with actor None, what happened to all of them."""

    actor: int | None
    text: str


class Gate:
    """The gate of one schedule, and a record of what passed it."""

    def __init__(self) -> None:
        self.phase = Phase.OPEN
        self.parked: list[Parked] = []
        self.lines: list[Line] = []
        self.begins: dict[int, Callable[[], None]] = {}
        """Callbacks for the first call of each actor's deed. Until that call, the deed might as well not have begun."""
        self.crashed: set[int] = set()
        """The actors whose process has died."""
        self._numbers: Counter[int] = Counter()
        self._under_way = 0
        self._locked_out: list[asyncio.Future[None]] = []

    @property
    def busy(self) -> bool:
        """Whether a call to a store is in flight."""
        return self._under_way > 0

    def say(self, actor: int | None, text: str) -> None:
        """Adds a line to the timeline. A dead process adds none."""
        if self.phase is Phase.WATCHED and actor not in self.crashed:
            self.lines.append(Line(actor, text))

    def crash(self, actor: int) -> None:
        """Kills an actor's process before its next call. Nothing of it ever moves again."""
        self.say(actor, "† dies")
        self.crashed.add(actor)
        self.parked = [call for call in self.parked if call.actor != actor]

    async def step(
        self,
        actor: int,
        text: str,
        call: Callable[[], Awaitable[T]],
        lost: Callable[[], Exception],
        *,
        show: Callable[[T], str] = str,
    ) -> T:
        """Makes a call when its turn comes. Raises what the call raises, and `lost` when its answer is lost. `show`
        formats the answer."""
        if self.phase is Phase.OPEN:
            return await call()
        passage = await self._turn(actor, text)
        if begin := self.begins.pop(actor, None):
            begin()
        place = len(self.lines)
        self.say(actor, text)
        answer = await self.bypass(actor, call)
        if passage is Passage.ANSWER_LOST:
            self.lines[place] = Line(actor, f"{text} ✗ the answer is lost")
            raise lost()
        if shown := show(answer):
            self.lines[place] = Line(actor, f"{text} → {shown}")
        return answer

    async def bypass(self, actor: int, call: Callable[[], Awaitable[T]]) -> T:
        """Makes a call at once, because it concerns no other actor."""
        if self.phase is not Phase.OPEN:
            await self._alive(actor)
        self._under_way += 1
        try:
            return await call()
        finally:
            self._under_way -= 1

    async def unlocked(self) -> None:
        """Returns when a lock is released."""
        free: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._locked_out.append(free)
        await free

    def unlock(self) -> None:
        """Wakes everything that waits for a lock, after one was released."""
        free, self._locked_out = self._locked_out, []
        for waiting in free:
            if not waiting.done():
                waiting.set_result(None)

    async def _turn(self, actor: int, text: str) -> Passage:
        await self._alive(actor)
        self._numbers[actor] += 1
        passage: asyncio.Future[Passage] = asyncio.get_running_loop().create_future()
        parked = Parked(actor, self._numbers[actor], text, passage)
        self.parked.append(parked)
        try:
            return await passage
        finally:
            if parked in self.parked:
                self.parked.remove(parked)

    async def _alive(self, actor: int) -> None:
        if self.phase is Phase.OVER:
            raise asyncio.CancelledError
        if actor in self.crashed:
            await asyncio.get_running_loop().create_future()
