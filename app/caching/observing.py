"""What the cache reports: each event, to one callable that its owner passes in.

A service counts the events, a bill adds them up, a test asserts them. The library need not know.
"""

from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum


class Event(StrEnum):
    """What can happen in a region. The first six are the outcomes of a reading: each reading reports one."""

    HIT = "hit"
    MISS = "miss"
    COLLAPSED = "collapsed"
    STALE = "stale"
    LOCKED = "locked"
    BYPASSED = "bypassed"
    LOADED = "loaded"  # A load succeeded, within the reported duration.
    LOAD_FAILED = "load_failed"
    STORED = "stored"  # A fill was cached.
    REFUSED = "refused"  # A fill was not cached: its lease was gone, a newer version is known, or Redis did not answer.
    FOREIGN = "foreign"  # The key holds something that this schema cannot read, which is a miss.
    REFRESHED = "refreshed"  # A load began before the entry was stale.
    INVALIDATED = "invalidated"
    INVALIDATION_FAILED = "invalidation_failed"  # It is retried later; with a relay, from its outbox row.
    UNAVAILABLE = "unavailable"  # Redis did not answer, or answered with an error.


Observe = Callable[[str, Event, timedelta, int], None]
"""Called with the region's name, the event, its duration (zero if it is not measured), and how often it happened: the
hits of one list are reported together."""


class Flow(StrEnum):
    """What can happen between write-behind's caller and the database. Unless noted, the count is an added amount."""

    READ = "read"  # The number of totals that were asked for.
    ACCEPTED = "accepted"
    FLUSHED = "flushed"
    ROWS = "rows"  # The number of rows written.
    FLUSHES = "flushes"  # The number of rounds that succeeded.
    FAILURES = "failures"  # The number of rounds that failed.
    DEAD = "dead"  # It became dead letters.
    GONE = "gone"  # The number of entries that left the stream before they were flushed.
    RECOVERED = "recovered"  # Redis lost it, and it was accepted again.
    LOST = "lost"  # Redis lost it, and it cannot be recovered.


ObserveFlow = Callable[[Flow, int], None]
"""Called with the event, and how much or how many."""


def unobserved(flow: Flow, count: int) -> None:
    """Ignores the event."""
