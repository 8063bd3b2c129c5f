"""A process of a case: a strategy and a table, each on its own connections, and what an actor does with them.

live    the deeds of an actor, in order; a deed that fails is in doubt, and the next one begins
look    at the end: relays and flushes everything, then reads both stores
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import cast

from app.lab.published import Flushing
from app.lab.races.cases import KEY, Actor, Deed
from app.lab.races.gate import Gate
from app.lab.races.relayed import Polling
from app.lab.races.stepped_table import SteppedTable
from app.lab.races.witness import Witness
from app.lab.strategy import Strategy

PASSES = 50
"""The number of passes in which a flusher flushes everything."""


@dataclass(slots=True)
class Process:
    """The process at a `place` of its case. It reports what it does to the `witness`."""

    place: int
    strategy: Strategy
    table: SteppedTable
    gate: Gate
    witness: Witness
    floor: int = 0
    """The oldest version, or the lowest count, that a read which begins now may return."""

    async def live(self, actor: Actor, values: Iterator[int]) -> None:
        """Carries out the actor's deeds. Each write takes the next of the `values`."""
        for deed in actor.deeds:
            self.floor = 0
            try:
                await self._do(deed, values)
            except Exception as error:  # noqa: BLE001  # Any error: the caller would see it.
                self.gate.say(self.place, f"fails: {type(error).__name__}")
            if self.place in self.gate.crashed:
                return  # A dead process' deadlines still pass, but nothing is left to act on them.

    async def look(self, *, behind: bool) -> None:
        """Relays everything, flushes what is written `behind`, and then reads both stores."""
        if isinstance(self.strategy, Polling):
            await self.strategy.poll()
        if behind:
            in_vain = 0
            for _pass in range(PASSES):
                in_vain = 0 if await cast("Flushing", self.strategy).flush() else in_vain + 1
                if in_vain == 2:  # The first pass may only have created the consumer group.
                    break
        row = await self.table.load(KEY)
        self.witness.ends(0 if row is None else row.value, await self.strategy.read(KEY))

    async def _do(self, deed: Deed, values: Iterator[int]) -> None:
        self.gate.begins[self.place] = self._begin
        match deed:
            case Deed.READ:
                read = await self.strategy.read(KEY)
                self.gate.say(self.place, f"answers {read}")
                self.witness.answers(read, self.floor)
            case Deed.WRITE:
                value = next(values)
                self.gate.begins[self.place] = partial(self.witness.begins, value)
                await self.strategy.write(KEY, value)
                self.gate.say(self.place, "acknowledged")
                self.witness.acknowledges(value)
            case Deed.FLUSH:
                await cast("Flushing", self.strategy).flush()
            case Deed.POLL:
                await cast("Polling", self.strategy).poll()

    def _begin(self) -> None:
        self.floor = self.witness.floor
