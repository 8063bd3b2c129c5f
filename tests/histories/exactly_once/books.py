"""What was asked and answered about each page, and what a total may therefore be."""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

GRACE = 3.0
"""When a flusher has in hand what Redis has lost, the total does not know of it until it is acknowledged: for so many
seconds Postgres may have more."""


@dataclass(frozen=True, slots=True)
class Floor:
    """The least that may be told to a read which starts now: what was answered or told before, and what the database
    had, where somebody has looked; `stored` is what it had `GRACE` ago."""

    views: int
    stored: int


@dataclass(slots=True, eq=False)
class Call:
    """A call, and how often it may count: once, and once more for each loss that it has seen. A view that the database
    has from its first time, and whose key Redis has lost, counts again when it is repeated."""

    views: Counter[str]
    times: int
    repeated: bool = False


@dataclass(slots=True)
class Books:
    """All pages of one round. A total is at least what was `counted`, and at most what was `sent`."""

    counted: Counter[str] = field(default_factory=Counter)
    """Views that were answered with 202."""
    sent: Counter[str] = field(default_factory=Counter)
    """Those, and what may have been taken on although an error was answered, or nothing."""
    told: Counter[str] = field(default_factory=Counter)
    """The highest total of a page that was told."""
    looks: defaultdict[str, deque[tuple[float, int]]] = field(default_factory=lambda: defaultdict(deque))
    """What the database had, and when."""
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """What must never be told, and was."""
    under_way: set[Call] = field(default_factory=set)
    losing: bool = False
    """Whether Redis is losing something now."""
    lost_at: float | None = None
    """When Redis began to lose something, or had lost it, the last time."""
    lacking: set[str] = field(default_factory=set)
    """Pages of which less was told than was counted, and not everything again since."""
    whole_after: float = 0.0
    """So long after Redis lost something, a total still lacked it."""

    @contextmanager
    def loss(self) -> Iterator[None]:
        """Redis loses something while the block lasts.

        A call may begin in it, be taken on and lost, and be repeated, all before the one who broke Redis knows that it
        is back: then it has seen the loss, too.
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
        """Somebody calls while the block lasts, again and again if he repeats it."""
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
        """Somebody has looked what the database has."""
        self.looks[page].append((time.monotonic(), stored))

    def floor(self, page: str) -> Floor:
        """What a read that starts now must not fall below."""
        looks, before = self.looks[page], time.monotonic() - GRACE
        newest = looks[-1][1] if looks else 0
        while len(looks) > 1 and looks[1][0] <= before:
            looks.popleft()
        stored = looks[0][1] if looks and looks[0][0] <= before else 0
        return Floor(max(self.counted[page], self.told[page], newest), stored)

    def hear(self, page: str, floor: Floor, views: int) -> None:
        """A total was told."""
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
        """What is wrong with what Postgres has in the end."""
        return [
            f"{page}: Postgres has {stored.get(page, 0)} views, and not {self.counted[page]} to {most}."
            for page, most in self.sent.items()
            if not self.counted[page] <= stored.get(page, 0) <= most
        ]
