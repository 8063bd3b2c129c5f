"""What one contestant, or the relay, has used of both stores so far."""

from contextvars import ContextVar
from dataclasses import dataclass, field

from app.lab.comparison.traffic import Traffic

WRITING: ContextVar[bool] = ContextVar("WRITING", default=False)
"""Whether a statement belongs to a write: some of the published strategies read before they write."""


@dataclass(slots=True)
class Costs:
    """Statements, and traffic with Redis. `asked` is the number of keys that reads have requested from the database."""

    traffic: Traffic = field(default_factory=Traffic)
    reads: int = 0
    writes: int = 0
    asked: int = 0

    def count(self, keys: int | None) -> None:
        """Counts a statement of `LabTable`: one that requested `keys` keys, or a write when `keys` is None."""
        if keys is None:
            self.writes += 1
        else:
            self.reads += 1
            self.ask(keys)

    def ask(self, keys: int) -> None:
        """Counts keys that are requested from the database, unless a write requests them."""
        if not WRITING.get():
            self.asked += keys

    def count_read(self, resource: str) -> None:
        """Counts a reading statement of `app.database`."""
        self.reads += 1

    def count_write(self, resource: str) -> None:
        """Counts a writing statement of `app.database`."""
        self.writes += 1

    def reset(self) -> None:
        """Starts the billing from zero."""
        self.traffic.round_trips = self.traffic.bytes = self.reads = self.writes = self.asked = 0
