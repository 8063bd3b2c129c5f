"""A moment by two clocks, for periods that must end in time even if one of the clocks stands still.

    boot    the time since boot, including sleep (CLOCK_BOOTTIME; elsewhere the monotonic clock, which may stand still
            while the machine sleeps)
    wall    the time of day: after a virtual machine was paused, it jumps ahead once it is set right

A period ends as soon as it is over by either clock. If one clock steps back, the other one still ends the period. A
step forward ends it early, which costs one more check.

What can go wrong: a machine whose clocks all stood still cannot detect it.
"""

import time
from datetime import timedelta
from functools import partial
from typing import NamedTuple, Self

boot = partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
wall = time.time


class Moment(NamedTuple):
    """A moment, in seconds of both clocks."""

    boot: float
    wall: float

    @classmethod
    def now(cls) -> Self:
        """Returns the present moment."""
        return cls(boot(), wall())

    def later(self, duration: timedelta) -> "Moment":
        """Returns the moment `duration` later."""
        seconds = duration.total_seconds()
        return Moment(self.boot + seconds, self.wall + seconds)


LONG_AGO, NEVER = Moment(float("-inf"), float("-inf")), Moment(float("inf"), float("inf"))
"""A moment before, and one after, every other moment."""
