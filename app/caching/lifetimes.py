"""How long cached entries live."""

import random
from dataclasses import dataclass
from datetime import timedelta

JITTER = 0.1
"""Entries that were filled together must not expire together: each lives up to a tenth less than its lifetime."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long the entries of a region live. A row is fresh for `fresh`, and then kept for `stale` in case a load
    fails. The absence of a row is cached for `absent`."""

    fresh: timedelta
    stale: timedelta
    absent: timedelta

    def of_entry(self, *, row: bool) -> tuple[timedelta, timedelta]:
        """Returns how long an entry is fresh, and how long it is kept: for a row, or for the absence of a row."""
        shorter = 1 - JITTER * random.random()
        if not row:
            return self.absent * shorter, self.absent * shorter
        fresh = self.fresh * shorter
        return fresh, fresh + self.stale


DEFAULT = Lifetimes(fresh=timedelta(minutes=5), stale=timedelta(minutes=10), absent=timedelta(seconds=30))


def ms(duration: timedelta) -> int:
    """Returns whole milliseconds, at least one."""
    return max(1, round(duration / timedelta(milliseconds=1)))
