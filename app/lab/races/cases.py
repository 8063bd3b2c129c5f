"""The races to run: for each strategy, a few processes that do just enough to show what can go wrong.

Most defects need two processes with two operations each, one of which stalls at the wrong moment. (Lu et al., "Learning
from Mistakes", ASPLOS 2008: 96 % of the concurrency bugs that were examined.)
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto
from functools import partial

from redis.asyncio import Redis

from app.caching.write_behind.shard import number
from app.lab.anomaly import Anomaly
from app.lab.ours import CacheAside, ReadThrough, WriteThrough
from app.lab.published import PUBLISHED
from app.lab.races.relayed import Relayed
from app.lab.races.stepped_table import SteppedTable
from app.lab.races.stepped_write_behind import SteppedWriteBehind
from app.lab.strategy import Holds, Strategy

KEY = "k"
"""The key of all races."""

Make = Callable[[Redis, SteppedTable, str, timedelta], Strategy]
"""Makes the strategy of one process from a Redis, a table, a key prefix and the TTL of an entry."""


class Deed(Enum):
    """What a process does."""

    READ = auto()
    WRITE = auto()
    FLUSH = auto()  # A pass of the flusher, from Redis to the database.
    POLL = auto()  # A poll of the relay, which reads the outbox.


@dataclass(frozen=True, slots=True)
class Actor:
    """A process: its name, and its deeds in order."""

    name: str
    deeds: tuple[Deed, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """A strategy, the processes that use it, and the anomalies that it shows; none for a correct one.

    `behind` says that the database gets writes later. For keys that are spread over shards, `shard` is the one that the
    race is about.
    """

    name: str
    holds: Holds
    make: Make
    actors: tuple[Actor, ...]
    shows: frozenset[Anomaly]
    behind: bool = False
    ours: bool = False
    shard: int | None = None


READER, TWO_READS = Actor("reader", (Deed.READ,)), Actor("reader", (Deed.READ, Deed.READ))
WRITER, TWO_WRITES = Actor("writer", (Deed.WRITE,)), Actor("writer", (Deed.WRITE, Deed.WRITE))
WRITER_THEN_READER = Actor("writer", (Deed.WRITE, Deed.READ))
OTHER_READER, OTHER_WRITER = Actor("other reader", (Deed.READ, Deed.READ)), Actor("other writer", (Deed.WRITE,))
FLUSHER = Actor("flusher", (Deed.FLUSH, Deed.FLUSH))
ONE_FLUSH = Actor("sync", (Deed.FLUSH,))
OTHER_FLUSHER = Actor("other flusher", (Deed.FLUSH,))
RELAY = Actor("relay", (Deed.POLL,))

ACTORS = {
    "cache-aside, as published": (READER, WRITER),
    "cache-aside with SETNX": (READER, WRITER),
    "cache-aside, TTL only": (TWO_READS, WRITER),
    "write-through, concurrent": (TWO_READS, WRITER, OTHER_WRITER),
    "write-through, concurrent with catch": (TWO_READS, WRITER, OTHER_WRITER),
    "write-behind, list": (READER, TWO_WRITES, FLUSHER),
    "write-behind, list moved": (READER, TWO_WRITES, FLUSHER),
    "write-behind, stream": (READER, TWO_WRITES, FLUSHER),
    "write-behind, dirty keys": (TWO_WRITES, ONE_FLUSH),
    "write-behind, dirty keys compared": (TWO_WRITES, ONE_FLUSH),
}


TWO_COLD = (WRITER_THEN_READER, OTHER_WRITER)
"""Two writers that find no counter."""


def _published(name: str, suffix: str = "", actors: tuple[Actor, ...] = (), *hidden: Anomaly) -> Case:
    """Returns the case of a published variant. The case does not expose the anomalies in `hidden`."""
    published = PUBLISHED[name]
    behind = name.startswith("write-behind")
    holds = Holds.COUNTS if "dirty" in name else Holds.VALUES
    actors, shows = actors or ACTORS[name], published.shows - {*hidden}
    return Case(name + suffix, holds, published.make, actors, shows, behind)


CASES: tuple[Case, ...] = (
    *(_published(name) for name in PUBLISHED if name != "write-behind, dirty keys"),
    _published("write-behind, dirty keys", "", (), Anomaly.STALE),
    _published("write-behind, dirty keys", ", cold", TWO_COLD),
    _published("write-behind, dirty keys compared", ", cold", TWO_COLD),
    Case(
        "cache-aside",
        Holds.VALUES,
        partial(Relayed, CacheAside),
        (READER, WRITER, OTHER_READER, RELAY),
        frozenset(),
        ours=True,
    ),
    Case(
        "read-through",
        Holds.VALUES,
        partial(Relayed, ReadThrough),
        (READER, WRITER, OTHER_READER, RELAY),
        frozenset(),
        ours=True,
    ),
    Case(
        "write-through",
        Holds.VALUES,
        partial(Relayed, WriteThrough),
        (READER, WRITER, OTHER_WRITER, OTHER_READER),
        frozenset(),
        ours=True,
    ),
    Case(
        "write-behind",
        Holds.COUNTS,
        SteppedWriteBehind,
        (TWO_READS, TWO_WRITES, FLUSHER, OTHER_FLUSHER),
        frozenset(),
        behind=True,
        ours=True,
        shard=number(KEY),
    ),
)
"""The published variants and their repaired forms, then ours."""
