"""The plan of a comparison."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Plan:
    """How a trace is played."""

    clients: int = 8
    rate: float | None = None
    """Operations per second; None for a closed loop of `clients`."""
    warm_up: int = 0
    """How many of the first operations are played but not billed."""
    cache_size: int | None = None
    """In entries; None for no limit."""
    ttl: timedelta = timedelta(seconds=300)
    db_latency: timedelta = timedelta(0)
    """To the database and back, added at the wire."""
    seed: int = 1
    drills: bool = True
    """Whether to run the two drills, which provoke what a quiet run may hide."""
