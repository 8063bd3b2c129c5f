"""Entries that the database has not counted, in time or at all, each tried alone: they stand aside, and others go on.

    not counted among others    half of them are tried, and half of those, until one stands alone
    not counted alone           it is set aside, and tried again by itself: after 1 s, 2 s, 4 s, … 30 s

When none is counted, it is the database, and no entry's fault: then the pause is 2 s at most. All are tried again as
soon as one was counted. None is ever given up.

What can go wrong: so many stand aside that nothing more is flushed before some of them are.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from ..errors import NotDone
from ..repeating import AGAIN
from .pending import Pending

FIRST, LONGEST = timedelta(seconds=1), timedelta(seconds=30)
OUTAGE = timedelta(seconds=2)
"""The longest pause while no others are counted: then it is to end as soon as it may."""
MOST = 200
"""When so many stand aside, nothing more is flushed before some of them are."""


@dataclass(slots=True)
class Aside:
    """An entry, why it failed the last time, and how often it has; how far the others had come when it first did, and
    whether it has failed while they were counted."""

    entry: Pending
    error: NotDone
    seen: int
    again_at: float
    pause: float
    failures: int = 1
    alone: bool = False
    dead: int = 0
    """How much of it became dead letters, when it is only to be forgotten yet."""


class SetAside:
    """Those of one flusher."""

    def __init__(self) -> None:
        self._asides: list[Aside] = []
        self._counted = 0
        """How many flushes have counted anything."""

    @property
    def entries(self) -> Sequence[Pending]:
        """What stands aside."""
        return [aside.entry for aside in self._asides]

    @property
    def full(self) -> bool:
        """Whether no more may stand aside."""
        return len(self._asides) >= MOST

    @property
    def due(self) -> Sequence[Aside]:
        """What is to be tried again now."""
        now = time.monotonic()
        return [aside for aside in self._asides if aside.again_at <= now]

    @property
    def trouble(self) -> NotDone | None:
        """Why one of them is not counted, try after try."""
        return next((aside.error for aside in self._asides if aside.failures >= AGAIN), None)

    def put(self, entry: Pending, error: NotDone) -> None:
        """Sets an entry aside that was not counted alone."""
        pause = FIRST.total_seconds()
        self._asides.append(Aside(entry, error, self._counted, time.monotonic() + pause, pause))

    def counted(self) -> None:
        """Others were counted: so what failed while none was may be counted, too."""
        self._counted += 1
        for aside in self._asides:
            if not aside.alone:
                aside.again_at = time.monotonic()

    def failed(self, aside: Aside, error: NotDone) -> None:
        """It was not counted again."""
        aside.error, aside.failures = error, aside.failures + 1
        aside.alone = aside.alone or self._counted > aside.seen
        longest = LONGEST if aside.alone else OUTAGE
        aside.pause = min(aside.pause * 2, longest.total_seconds())
        aside.again_at = time.monotonic() + aside.pause

    def remove(self, aside: Aside) -> None:
        """It was flushed."""
        self._asides.remove(aside)

    def clear(self) -> None:
        """Whoever owns them claims them."""
        self._asides.clear()
