"""The cut between a process and the database, in the middle of its work.

    the tables      nothing that sets out after the cut arrives
    our flusher     its next COMMIT arrives, and the answer to it does not

The cut makes the worst moment certain: each flusher dies with a batch in its hands. For one that takes its batch out of
the queue first, that is before the database has the batch. For ours, which does so last, it is after that.
"""

from dataclasses import dataclass

LATENCY = 0.04
"""Seconds to the database, and as many back."""
NEVER = 3600.0
"""Seconds that bytes are on their way which do not arrive."""


@dataclass(slots=True)
class Cut:
    """How long bytes are on their way, on the two ways of a process to the database. It begins when it is `asked`."""

    asked: bool = False
    committed: bool = False

    def usual(self) -> float:
        """On a way that is not cut."""
        return LATENCY

    def there(self) -> float:
        """To the tables."""
        return NEVER if self.asked else LATENCY

    def hear(self, said: bytes) -> None:
        """Our flusher sends this."""
        # The first commit that sets out after the cut is the last thing that arrives. (With the semicolon it is no
        # "READ COMMITTED".)
        self.committed = self.committed or (self.asked and b"COMMIT;" in said)

    def back(self) -> float:
        """Back to our flusher."""
        return NEVER if self.committed else LATENCY
