"""Records what was asked and answered about each page, and so what a total may be."""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

GRACE = 3.0
"""Seconds for which Postgres may have more than a total: while a flusher holds entries that Redis has lost, the total
does not include them until they are acknowledged."""


@dataclass(frozen=True, slots=True)
class Floor:
    """The least that a read which starts now may be told. `views`: what was answered or told before, or what the
    database had when it was checked. `stored`: what the database had `GRACE` ago."""

    views: int
    stored: int


@dataclass(slots=True, eq=False)
class Call:
    """A call, and how often it may count: once, plus once for each loss that it has lived through. If the database has
    a view from the first attempt, and Redis has lost its key, the view counts again when it is repeated."""

    views: Counter[str]
    times: int
    repeated: bool = False


@dataclass(slots=True)
class Books:
    """All pages of one round. A total is at least what was `counted`, and at most what was `sent`."""

    counted: Counter[str] = field(default_factory=Counter)
    """Views that were answered with 202."""
    sent: Counter[str] = field(default_factory=Counter)
    """Those, plus views that may have been accepted although the answer was an error, or never came."""
    told: Counter[str] = field(default_factory=Counter)
    """The highest total of each page that was answered."""
    looks: defaultdict[str, deque[tuple[float, int]]] = field(default_factory=lambda: defaultdict(deque))
    """What the database had, and when."""
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """Answers that must never be given, and were."""
    under_way: set[Call] = field(default_factory=set)
    losing: bool = False
    """Whether Redis is losing something now."""
    lost_at: float | None = None
    """When Redis last began to lose something, or finished losing it."""
    lacking: set[str] = field(default_factory=set)
    """Pages with an answered total below what was counted, and without a complete total since."""
    whole_after: float = 0.0
    """The longest time after a loss of Redis at which a total still lacked something."""

    @contextmanager
    def loss(self) -> Iterator[None]:
        """Marks the time in which Redis loses something.

        A call may begin in it, be accepted and lost, and be repeated, all before the test that breaks Redis knows that
        Redis is back. So such a call has lived through the loss, too.
        """
        self.losing, self.lost_at = True, time.monotonic()
        for call in self.under_way:
            call.times += 1
            self.sent.update(call.views)
        try:
            yield
        finally:
            self.losing, self.lost_at = False, time.monotonic()

    @contextmanager
    def call(self, views: Counter[str]) -> Iterator[Call]:
        """Marks the time of a call, including all its repetitions."""
        call = Call(views, 2 if self.losing else 1)
        self.under_way.add(call)
        for _ in range(call.times):
            self.sent.update(views)
        try:
            yield call
        finally:
            self.under_way.remove(call)
            if not call.repeated:
                for _ in range(call.times - 1):
                    self.sent.subtract(views)
            elif call.times > 1:
                self.counts["repeated after a loss"] += 1

    def look(self, page: str, stored: int) -> None:
        """Records what the database has now."""
        self.looks[page].append((time.monotonic(), stored))

    def floor(self, page: str) -> Floor:
        """Returns the least that a read which starts now may be told."""
        looks, before = self.looks[page], time.monotonic() - GRACE
        newest = looks[-1][1] if looks else 0
        while len(looks) > 1 and looks[1][0] <= before:
            looks.popleft()
        stored = looks[0][1] if looks and looks[0][0] <= before else 0
        return Floor(max(self.counted[page], self.told[page], newest), stored)

    def hear(self, page: str, floor: Floor, views: int) -> None:
        """Records and checks a total that was answered."""
        self.counts["totals told"] += 1
        if views > self.sent[page]:
            self.wrong.append(f"{page}: {views} views were told, and {self.sent[page]} were sent.")
        if views < floor.stored:
            self.wrong.append(f"{page}: {views} views were told, and Postgres had {floor.stored} long before.")
        if views >= floor.views:
            self.lacking.discard(page)
        elif self.lost_at is not None:
            self.counts["told without what was lost"] += 1
            self.lacking.add(page)
            self.whole_after = max(self.whole_after, time.monotonic() - self.lost_at)
        else:
            self.wrong.append(f"{page}: {views} views were told, and {floor.views} were counted or told before.")
        self.told[page] = max(self.told[page], views)

    def check(self, stored: Mapping[str, int]) -> list[str]:
        """Returns what is wrong with what Postgres has in the end."""
        return [
            f"{page}: Postgres has {stored.get(page, 0)} views, and not {self.counted[page]} to {most}."
            for page, most in self.sent.items()
            if not self.counted[page] <= stored.get(page, 0) <= most
        ]
