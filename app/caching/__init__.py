"""The four caching strategies. They differ in what the constructor learns about the database:

    CacheAside(region)                nothing: the caller passes the query
    ReadThrough(region, load)         how to read
    WriteThrough(region, load, save)  how to read, and how to write immediately
    WriteBehind(cache, name, target)  how to read; `Flusher(cache, name, target)` writes later

This folder depends on Redis and on nothing in this application, so you can copy it as it is. Start with
`cache_aside.py`. The strategies share `region.py` (keys, leases, versions), `single_flight.py` (one load for all
readers) and `scripts/`. Write-behind has its own folder, `write_behind/`, which includes its scripts. Whether Redis is
believed is decided in `trust.py`. Trust is lost if Redis does not answer (`breaker.py`) or is another one
(`identity.py`).
"""

from .breaker import Breaker
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
from .fitness import Fsync, denied, fitness, fsync, trial, weakest_fsync
from .identity import Identity
from .lease import Locked
from .lifetimes import Lifetimes
from .observing import Event, Flow, Observe, ObserveFlow
from .read_through import ReadThrough
from .reading import Outcome, Reading, Versioned
from .record import Owner, Record, Seen
from .region import Region
from .trust import SETTLED, Trust
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
    "Identity",
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
    "Trust",
    "Unreadable",
    "Versioned",
    "WriteBehind",
    "WriteThrough",
    "denied",
    "fitness",
    "fsync",
    "made_at",
    "open_cache",
    "open_redis",
    "trial",
    "weakest_fsync",
]
