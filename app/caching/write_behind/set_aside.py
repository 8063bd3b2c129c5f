"""Sets aside entries that the database has not counted, in time or at all, so that the others can go on.

    not counted among others    half of them are tried, and half of those, until one is alone
    not counted alone           it is set aside, and retried on its own: after 1 s, 2 s, 4 s, … 30 s

If no entry is counted, the cause is the database and not an entry: then the pause is at most 2 s. As soon as one is
counted, all that failed during that time are retried. No entry is ever dropped.

What can go wrong: so many entries are set aside that nothing more is flushed before some of them are.
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
"""The longest pause while no other entries are counted. It is short, so flushing resumes soon after an outage."""
MOST = 200
"""The most entries that are set aside. With so many, nothing more is flushed before some of them are."""


@dataclass(slots=True)
class Aside:
    """An entry that was set aside, its last error, and its number of failures. `seen` is how many flushes had counted
    when it first failed. `alone` says whether it has failed while others were counted."""

    entry: Pending
    error: NotDone
    seen: int
    again_at: float
    pause: float
    failures: int = 1
    alone: bool = False
    dead: int = 0
    """How much of it became dead letters, if it was salvaged and only has to be forgotten."""


class SetAside:
    """The entries that one flusher has set aside."""

    def __init__(self) -> None:
        self._asides: list[Aside] = []
        self._counted = 0
        """How many flushes have counted anything."""

    @property
    def entries(self) -> Sequence[Pending]:
        """The entries that are set aside."""
        return [aside.entry for aside in self._asides]

    @property
    def full(self) -> bool:
        """Whether no more entries may be set aside."""
        return len(self._asides) >= MOST

    @property
    def due(self) -> Sequence[Aside]:
        """The entries to retry now."""
        now = time.monotonic()
        return [aside for aside in self._asides if aside.again_at <= now]

    @property
    def trouble(self) -> NotDone | None:
        """Why one of them repeatedly fails, None if none does."""
        return next((aside.error for aside in self._asides if aside.failures >= AGAIN), None)

    def put(self, entry: Pending, error: NotDone) -> None:
        """Sets aside an entry that failed on its own."""
        pause = FIRST.total_seconds()
        self._asides.append(Aside(entry, error, self._counted, time.monotonic() + pause, pause))

    def counted(self) -> None:
        """Records that other entries were counted. Entries that failed only while none was are retried now."""
        self._counted += 1
        for aside in self._asides:
            if not aside.alone:
                aside.again_at = time.monotonic()

    def failed(self, aside: Aside, error: NotDone) -> None:
        """Records that an entry failed again."""
        aside.error, aside.failures = error, aside.failures + 1
        aside.alone = aside.alone or self._counted > aside.seen
        longest = LONGEST if aside.alone else OUTAGE
        aside.pause = min(aside.pause * 2, longest.total_seconds())
        aside.again_at = time.monotonic() + aside.pause

    def remove(self, aside: Aside) -> None:
        """Removes an entry that was flushed."""
        self._asides.remove(aside)

    def clear(self) -> None:
        """Removes all entries: their owner claims them."""
        self._asides.clear()
