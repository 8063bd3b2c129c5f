"""The four strategies. What each constructor is told of the database is what tells them apart:

    CacheAside(region)                nothing: the caller brings the query
    ReadThrough(region, load)         how to read
    WriteThrough(region, load, save)  how to read and how to write, now
    WriteBehind(cache, name, target)  how to read; and `Flusher(cache, name, target)` how to write, later

This folder knows Redis, and nothing of this application: it can be lifted out as it is. Begin with `cache_aside.py`;
what the strategies share is in `region.py` (keys, leases, versions), `single_flight.py` (one load for all readers) and
`scripts/`. Write-behind has a folder of its own, `write_behind/`, with its scripts in it.
"""

from .breaker import SETTLED, Breaker
from .bulkhead import Bulkhead
from .cache import Cache, open_cache
from .cache_aside import CacheAside
from .clock import RedisClock
from .connection import open_redis
from .errors import (
    BacklogFull,
    Behind,
    CacheError,
    CacheUnavailable,
    KeysFull,
    KeyUnreadable,
    KeyWorn,
    LoadTimeout,
    NotDone,
    NotInvalidated,
    Overloaded,
    Refused,
    TargetUnavailable,
    TotalOverflow,
    Unreadable,
)
from .fitness import Fsync, fitness, fsync, trial
from .lease import Locked
from .lifetimes import Lifetimes
from .observing import Event, Flow, Observe, ObserveFlow
from .read_through import ReadThrough
from .reading import Outcome, Reading, Versioned
from .record import Owner, Record, Seen
from .region import Region
from .write_behind import Backlog, Batch, Cap, Flusher, Pending, Standing, Target, Total, WriteBehind, made_at
from .write_through import Revoke, WriteThrough

__all__ = [
    "SETTLED",
    "Backlog",
    "BacklogFull",
    "Batch",
    "Behind",
    "Breaker",
    "Bulkhead",
    "Cache",
    "CacheAside",
    "CacheError",
    "CacheUnavailable",
    "Cap",
    "Event",
    "Flow",
    "Flusher",
    "Fsync",
    "KeyUnreadable",
    "KeyWorn",
    "KeysFull",
    "Lifetimes",
    "LoadTimeout",
    "Locked",
    "NotDone",
    "NotInvalidated",
    "Observe",
    "ObserveFlow",
    "Outcome",
    "Overloaded",
    "Owner",
    "Pending",
    "ReadThrough",
    "Reading",
    "Record",
    "RedisClock",
    "Refused",
    "Region",
    "Revoke",
    "Seen",
    "Standing",
    "Target",
    "TargetUnavailable",
    "Total",
    "TotalOverflow",
    "Unreadable",
    "Versioned",
    "WriteBehind",
    "WriteThrough",
    "fitness",
    "fsync",
    "made_at",
    "open_cache",
    "open_redis",
    "trial",
]
