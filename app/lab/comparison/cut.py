"""The cut between a process and the database, in the middle of its work.

    the tables      nothing that is sent after the cut arrives
    our flusher     its next COMMIT arrives, and the answer to it does not

The cut forces the worst moment: each flusher dies with a batch in flight. For one that first takes its batch out of the
queue, that is before the database has the batch. For ours, which does so last, it is after that.
"""

from dataclasses import dataclass

LATENCY = 0.04
"""Delay to the database, and the same back, in seconds."""
NEVER = 3600.0
"""Delay of bytes that never arrive, in seconds."""


@dataclass(slots=True)
class Cut:
    """The delays on a process' two routes to the database. The cut begins when it is `asked`."""

    asked: bool = False
    committed: bool = False

    def usual(self) -> float:
        """Returns the delay of a direction that is not cut."""
        return LATENCY

    def there(self) -> float:
        """Returns the delay of statements to the tables."""
        return NEVER if self.asked else LATENCY

    def hear(self, said: bytes) -> None:
        """Sees what our flusher sends."""
        # The first commit sent after the cut is the last thing that arrives. (The semicolon tells it from "READ
        # COMMITTED".)
        self.committed = self.committed or (self.asked and b"COMMIT;" in said)

    def back(self) -> float:
        """Returns the delay of answers to our flusher."""
        return NEVER if self.committed else LATENCY
