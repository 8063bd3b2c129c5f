"""What was asked and answered about each page, and what a total may therefore be."""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Mapping
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
    losses: int = 0
    """Rises when Redis begins to lose something, and when it has lost it."""
    lost_at: float = 0.0
    lacking: set[str] = field(default_factory=set)
    """Pages of which less was told than was counted, and not everything again since."""
    whole_after: float = 0.0
    """So long after Redis lost something, a total still lacked it."""

    def loses(self) -> None:
        """Redis begins to lose something, or has lost it."""
        self.losses += 1
        self.lost_at = time.monotonic()

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
        elif self.losses:
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
