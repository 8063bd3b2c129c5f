"""A moment by two clocks, for what must end in time although one of them stands still.

    boot    the time since this machine began, with the time that it slept (CLOCK_BOOTTIME; elsewhere the monotonic
            clock, which may stand still while the machine sleeps)
    wall    the time of day: a virtual machine that was paused finds it ahead, when somebody has set it right

Whatever lasts from a moment on is over when it is over by one of them. A step back is ignored by the other one, and a
step forward ends it early, which costs another look.

What can go wrong: a machine all of whose clocks stood still does not know it.
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
        """This moment."""
        return cls(boot(), wall())

    def later(self, duration: timedelta) -> "Moment":
        """The moment so much later."""
        seconds = duration.total_seconds()
        return Moment(self.boot + seconds, self.wall + seconds)


LONG_AGO, NEVER = Moment(float("-inf"), float("-inf")), Moment(float("inf"), float("inf"))
"""Before and after every moment."""
