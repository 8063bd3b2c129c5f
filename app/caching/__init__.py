"""The four strategies. What each constructor is told of the database is what tells them apart:

    CacheAside(region)                nothing: the caller brings the query
    ReadThrough(region, load)         how to read
    WriteThrough(region, load, save)  how to read and how to write, now
    WriteBehind(redis, name, load)    how to read; and `Flusher(redis, name, flush)` how to write, later

This folder knows Redis, and nothing of this application: it can be lifted out as it is. Begin with `cache_aside.py`;
what the strategies share is in `region.py` (keys, leases, versions), `single_flight.py` (one load for all readers) and
`scripts/`.
"""

from app.caching.breaker import SETTLED, Breaker
from app.caching.cache import Cache, open_cache
from app.caching.cache_aside import CacheAside
from app.caching.clock import RedisClock
from app.caching.connection import open_redis
from app.caching.entry import Batch, Salvage
from app.caching.errors import (
    BacklogFull,
    Behind,
    CacheError,
    CacheUnavailable,
    KeysFull,
    LoadTimeout,
    NotDone,
    NotInvalidated,
    Overloaded,
    Refused,
    TargetUnavailable,
    TotalOverflow,
    Unreadable,
)
from app.caching.fitness import Fsync, fitness, fsync, trial
from app.caching.flusher import Flusher
from app.caching.intake import Cap
from app.caching.lease import Locked
from app.caching.lifetimes import Lifetimes
from app.caching.observing import Event, Flow, Observe, ObserveFlow
from app.caching.read_through import ReadThrough
from app.caching.reading import Outcome, Reading, Versioned
from app.caching.record import Owner, Record, Seen
from app.caching.region import Region
from app.caching.totals import Standing
from app.caching.write_behind import Backlog, WriteBehind
from app.caching.write_through import Revoke, WriteThrough

__all__ = [
    "SETTLED",
    "Backlog",
    "BacklogFull",
    "Batch",
    "Behind",
    "Breaker",
    "Cache",
    "CacheAside",
    "CacheError",
    "CacheUnavailable",
    "Cap",
    "Event",
    "Flow",
    "Flusher",
    "Fsync",
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
    "ReadThrough",
    "Reading",
    "Record",
    "RedisClock",
    "Refused",
    "Region",
    "Revoke",
    "Salvage",
    "Seen",
    "Standing",
    "TargetUnavailable",
    "TotalOverflow",
    "Unreadable",
    "Versioned",
    "WriteBehind",
    "WriteThrough",
    "fitness",
    "fsync",
    "open_cache",
    "open_redis",
    "trial",
]
