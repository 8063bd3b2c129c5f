"""Redis' clock, as this process knows it.

Freshness is judged by one clock, or two instances disagree about what is stale. That clock is Redis': the scripts stamp
values with it, and each process keeps how far its own monotonic clock is away from it.
"""

import time


class RedisClock:
    """The time in Redis, without asking Redis: it is set from each answer that carries the time."""

    def __init__(self) -> None:
        # Until the first answer comes, the wall clock of this machine is the best guess.
        self._offset = time.time() * 1000 - time.monotonic() * 1000

    def now(self) -> float:
        """Milliseconds since the epoch. A step of this machine's wall clock does not move it."""
        return time.monotonic() * 1000 + self._offset

    def set(self, now: float) -> None:
        """Redis has just said that it is `now`, in milliseconds since the epoch."""
        self._offset = now - time.monotonic() * 1000
