"""Our four strategies over a number under a key: the classes of `app/caching/`, used as in `app/wiring.py`.

The comparison and the races run the same classes, each over its own table. `OF_VALUES` has the strategies that keep
values; `WriteBehind` keeps counts.
"""

from collections.abc import Callable, Mapping

from app.lab.ours.cache_aside import CacheAside
from app.lab.ours.entry import Entry, EntryRegion
from app.lab.ours.locking_table import LockingTable
from app.lab.ours.read_through import ReadThrough
from app.lab.ours.write_behind import WriteBehind
from app.lab.ours.write_through import WriteThrough
from app.lab.strategy import Strategy

MakeOfValues = Callable[[EntryRegion, LockingTable], Strategy]
"""Makes a strategy from a region and a table with row locks."""

OF_VALUES: Mapping[str, MakeOfValues] = {
    "cache-aside": CacheAside,
    "read-through": ReadThrough,
    "write-through": WriteThrough,
}

__all__ = [
    "OF_VALUES",
    "CacheAside",
    "Entry",
    "EntryRegion",
    "LockingTable",
    "MakeOfValues",
    "ReadThrough",
    "WriteBehind",
    "WriteThrough",
]
