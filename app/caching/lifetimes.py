"""How long what is kept lives."""

import random
from dataclasses import dataclass
from datetime import timedelta

JITTER = 0.1
"""Entries that were filled together do not expire together: each lives up to a tenth less than it might."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long the entries of a region live: `fresh` a row, then `stale` more in case that a load fails, `absent` the
    knowledge that there is no row."""

    fresh: timedelta
    stale: timedelta
    absent: timedelta

    def of_entry(self, *, row: bool) -> tuple[timedelta, timedelta]:
        """For how long an entry is fresh, and for how long it is kept: with a row, or with the knowledge of none."""
        shorter = 1 - JITTER * random.random()
        if not row:
            return self.absent * shorter, self.absent * shorter
        fresh = self.fresh * shorter
        return fresh, fresh + self.stale


DEFAULT = Lifetimes(fresh=timedelta(minutes=5), stale=timedelta(minutes=10), absent=timedelta(seconds=30))


def ms(duration: timedelta) -> int:
    """Whole milliseconds, one at least."""
    return max(1, round(duration / timedelta(milliseconds=1)))
