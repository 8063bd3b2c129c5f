"""What the cache reports of itself: each thing that happened, to one callable that its owner gave.

The service counts them, a bill adds them up, a test asserts them; the library need not know.
"""

from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum


class Event(StrEnum):
    """What can happen in a region. The first six are the outcomes of a reading: each reading reports one of them."""

    HIT = "hit"
    MISS = "miss"
    COLLAPSED = "collapsed"
    STALE = "stale"
    LOCKED = "locked"
    BYPASSED = "bypassed"
    LOADED = "loaded"  # A load ended well; the duration is its own.
    LOAD_FAILED = "load_failed"
    STORED = "stored"  # A fill was kept.
    REFUSED = "refused"  # A fill came too late: the lease was gone, or a newer version is known.
    FOREIGN = "foreign"  # Something stands under the key that this schema cannot read; it is a miss.
    REFRESHED = "refreshed"  # A load began before the entry was stale.
    INVALIDATED = "invalidated"
    INVALIDATION_FAILED = "invalidation_failed"  # Redis was not told of a change; its outbox row is carried later.
    UNAVAILABLE = "unavailable"  # Redis did not answer, or answered with an error.


Observe = Callable[[str, Event, timedelta, int], None]
"""Called with the region's name, what happened, how long it took (zero where nothing was measured), and how many times
it happened: the hits of a list are told at once."""


class Flow(StrEnum):
    """What can happen on write-behind's way to the database: how much of what was added, where nothing else is said."""

    READ = "read"  # So many totals were asked for.
    ACCEPTED = "accepted"
    FLUSHED = "flushed"
    ROWS = "rows"  # So many rows were written for it.
    FLUSHES = "flushes"  # So many rounds ended well.
    FAILURES = "failures"  # So many rounds failed.
    DEAD = "dead"  # It became dead letters.
    GONE = "gone"  # So many entries had left the stream before they were flushed.
    RECOVERED = "recovered"  # Redis had lost it, and it was accepted again.
    LOST = "lost"  # Redis had lost it, and nobody has it any more.


ObserveFlow = Callable[[Flow, int], None]
"""Called with what happened, and how much or how many times."""


def unobserved(flow: Flow, count: int) -> None:
    """Nobody wants to know."""
