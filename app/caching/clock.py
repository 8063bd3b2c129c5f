"""Redis' clock, as this process knows it.

Freshness must be judged by one clock, or two instances disagree about what is stale. That clock is Redis': the scripts
stamp values with it, and each process keeps the offset of its own monotonic clock from it.
"""

import time


class RedisClock:
    """The time in Redis, known without asking Redis: each answer that carries the time sets it."""

    def __init__(self) -> None:
        # Until the first answer arrives, this machine's wall clock is the best guess.
        self._offset = time.time() * 1000 - time.monotonic() * 1000

    def now(self) -> float:
        """Returns milliseconds since the epoch. A step of this machine's wall clock does not affect it."""
        return time.monotonic() * 1000 + self._offset

    def set(self, now: float) -> None:
        """Sets the time: Redis has just answered `now`, in milliseconds since the epoch."""
        self._offset = now - time.monotonic() * 1000
