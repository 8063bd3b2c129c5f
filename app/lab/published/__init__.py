"""The published variants, as published, and the repaired forms of the write-behind ones.

They are here to be measured and broken. Each docstring says whether to copy the variant, and what is wrong with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from app.lab.anomaly import Anomaly
from app.lab.published.cache_aside import CacheAside
from app.lab.published.concurrent_writes import ConcurrentWrites
from app.lab.published.concurrent_writes_caught import ConcurrentWritesCaught
from app.lab.published.dirty_keys import DirtyKeys
from app.lab.published.dirty_keys_compared import DirtyKeysCompared
from app.lab.published.list_queue import ListQueue
from app.lab.published.moved_list_queue import MovedListQueue
from app.lab.published.set_nx import SetNx
from app.lab.published.stream_queue import StreamQueue
from app.lab.published.ttl_only import TtlOnly
from app.lab.strategy import Make, Strategy


class Flushing(Strategy, Protocol):
    """A strategy that flushes writes to the table later."""

    async def flush(self) -> int:
        """Runs one pass of what `running` repeats and returns how many writes it flushed; 0 when nothing is left."""


@dataclass(frozen=True, slots=True)
class Published:
    """One variant: its `defect` in a line, whether to `copy` it, and the anomalies it `shows` when it is unlucky."""

    name: str
    defect: str
    copy: bool
    shows: frozenset[Anomaly]
    make: Make


def _catalogue(*variants: Published) -> Mapping[str, Published]:
    return {variant.name: variant for variant in variants}


PUBLISHED: Mapping[str, Published] = _catalogue(
    Published(
        "cache-aside, as published",
        "A slow reader keeps the old row after the invalidation.",
        False,
        frozenset({Anomaly.STALE}),
        CacheAside,
    ),
    Published(
        "cache-aside with SETNX",
        "A load of more than 50 ms is made by everybody, and a slow reader keeps the old row.",
        False,
        frozenset({Anomaly.STALE}),
        SetNx,
    ),
    Published(
        "cache-aside, TTL only",
        "No write reaches the cache before the entry ends.",
        True,
        frozenset({Anomaly.STALE}),
        TtlOnly,
    ),
    Published(
        "write-through, concurrent",
        "The cache answers what the database has not committed, and two writers leave the older value in it.",
        False,
        frozenset({Anomaly.STALE, Anomaly.UNCOMMITTED}),
        ConcurrentWrites,
    ),
    Published(
        "write-through, concurrent with catch",
        "The catch is for the cache's failure; the database's leaves a value that never was.",
        False,
        frozenset({Anomaly.STALE, Anomaly.UNCOMMITTED}),
        ConcurrentWritesCaught,
    ),
    Published(
        "write-behind, list",
        "A flusher that dies takes up to 100 writes with it, and a second try undoes newer ones.",
        False,
        frozenset({Anomaly.STALE, Anomaly.LOST, Anomaly.UNCOMMITTED}),
        ListQueue,
    ),
    Published(
        "write-behind, list moved",
        "Repaired, for one flusher.",
        True,
        frozenset(),
        MovedListQueue,
    ),
    Published(
        "write-behind, stream",
        "What a flusher has read when it dies is never delivered again; the cache is not written.",
        False,
        frozenset({Anomaly.STALE, Anomaly.LOST}),
        StreamQueue,
    ),
    Published(
        "write-behind, dirty keys",
        "What is counted between the read and the clearing of the flag is not flushed.",
        False,
        frozenset({Anomaly.STALE, Anomaly.UNCOMMITTED, Anomaly.LOST}),
        DirtyKeys,
    ),
    Published(
        "write-behind, dirty keys compared",
        "Repaired, for one flusher.",
        True,
        frozenset(),
        DirtyKeysCompared,
    ),
)

__all__ = [
    "PUBLISHED",
    "CacheAside",
    "ConcurrentWrites",
    "ConcurrentWritesCaught",
    "DirtyKeys",
    "DirtyKeysCompared",
    "Flushing",
    "ListQueue",
    "MovedListQueue",
    "Published",
    "SetNx",
    "StreamQueue",
    "TtlOnly",
]
