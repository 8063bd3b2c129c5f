"""The time that new batches are named by: Redis' clock, as this process knows it, but never what the ledger drops soon.

    A's copy of Redis' clock is a day behind                  the ledger has dropped that day
    A makes an id of yesterday: nobody knows whether it was counted, and its amounts are dead letters

Which time the ledger keeps is learned with whatever is read from the database, and every `LEARNED` at least.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from ..clock import RedisClock
from .target import Load, Standing

LEARNED = timedelta(minutes=10)


class BatchClock:
    """A clock for ids. Until it has learned something, it is Redis' alone."""

    def __init__(self, clock: RedisClock) -> None:
        self._clock = clock
        self._least = 0.0

    def now(self) -> float:
        """Milliseconds since the epoch."""
        return max(self._clock.now(), self._least)

    def learn(self, ids_from: datetime) -> None:
        """New ids are of this time at least."""
        self._least = max(self._least, ids_from.timestamp() * 1000)

    def learning(self, load: Load) -> Load:
        """The same `load`, from whose answers this clock learns."""

        async def learn(keys: Sequence[str], batches: Sequence[str]) -> Standing:
            standing = await load(keys, batches)
            self.learn(standing.ids_from)
            return standing

        return learn
