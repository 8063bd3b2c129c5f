"""The clock for the ids of new batches: this process's copy of Redis' clock, but no time that the ledger drops soon.
In a cluster it is the middle one of the nodes' clocks.

    A's copy of Redis' clock is a day behind                  the ledger has dropped that day
    A makes an id of yesterday: whether it was counted is unknown, so its amounts become dead letters

The time that the ledger keeps is learned with each read from the database, at least every `LEARNED`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from .target import Load, Standing

LEARNED = timedelta(minutes=10)


class Clock(Protocol):
    """Redis' clock, or that of a cluster (`cluster_clock.py`)."""

    def now(self) -> float:
        """Returns milliseconds since the epoch."""


class BatchClock:
    """A clock for ids. Until it has learned something, it is Redis' clock alone."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._least = 0.0

    def now(self) -> float:
        """Returns milliseconds since the epoch."""
        return max(self._clock.now(), self._least)

    def learn(self, ids_from: datetime) -> None:
        """Sets the earliest time for new ids."""
        self._least = max(self._least, ids_from.timestamp() * 1000)

    def learning(self, load: Load) -> Load:
        """Returns the same `load`. This clock learns from its answers."""

        async def learn(keys: Sequence[str], batches: Sequence[str]) -> Standing:
            standing = await load(keys, batches)
            self.learn(standing.ids_from)
            return standing

        return learn
