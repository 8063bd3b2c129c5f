"""The anomalies that a reader or a writer may see with a strategy."""

from enum import StrEnum


class Anomaly(StrEnum):
    """What can go wrong, judged by what was acknowledged and by what the database has committed."""

    STALE = "stale"  # A read that began after a write was acknowledged returns an older number.
    UNCOMMITTED = "uncommitted"  # A read returns a number that the database never had, or does not have yet.
    LOST = "lost"  # A write was acknowledged, and the database never gets it.
    DOUBLED = "doubled"  # The database counts more than was written.
