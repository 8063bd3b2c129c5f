"""The target: the three functions through which write-behind uses the database. It knows nothing else about it.

    load       the database's amounts for some keys, and which of some batches are in its ledger: in one snapshot
    flush      write batches: in one transaction, the ledger and the counters of the batches that are new to it
    salvage    write what can be written of a refused entry, and keep the rest as dead letters

The ledger is a table of batch ids. It makes each batch count exactly once: a second flush of a batch finds it there.

What can go wrong: each function raises `TargetUnavailable` if the database is down. flush and salvage raise `NotDone`
if the database is up but has not done the work. flush raises `Refused` if the database refuses some of its input. Any
other error of flush or salvage counts as `NotDone`. Each call needs a deadline: one that hangs blocks the rest.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ParamSpec, TypeVar

from ..errors import CacheError, NotDone, TargetUnavailable
from .batch import Batch
from .pending import Pending

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
"""No batch is older than this."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the database has: the amounts of keys, and which of some batches are in the ledger. A ledger that drops old
    batches sets `floor` and `ids_from`. Whether it had a batch from before `floor` is unknown. New ids must not be
    older than `ids_from`."""

    amounts: Mapping[str, int]
    applied: frozenset[str]
    floor: datetime = BEGINNING
    ids_from: datetime = BEGINNING


Load = Callable[[Sequence[str], Sequence[str]], Awaitable[Standing]]
"""Returns what the database has of some keys and batches, in one snapshot. Raises TargetUnavailable."""

Flush = Callable[[Sequence[Batch]], Awaitable[int]]
"""Adds batches to the counters, each at most once, and returns how many rows it wrote. Raises TargetUnavailable if the
database is down. Raises Refused if the database refuses some of the batches: then nothing is written. Raises NotDone if
the database is up but has not done the work; if even that is unknown, the ledger will show it."""

Salvage = Callable[[Pending, str, int], Awaitable[tuple[int, int]]]
"""Adds what can be added of one entry, and keeps the rest as dead letters, with the reason and how often it was tried:
in one transaction, once. Returns how many rows it wrote, and how much of the amount became dead letters. Raises
TargetUnavailable and NotDone."""


P = ParamSpec("P")
R = TypeVar("R")


def only(call: Callable[P, Awaitable[R]], *errors: type[CacheError]) -> Callable[P, Awaitable[R]]:
    """Returns the call, changed to raise only these errors, and NotDone in place of any other:

    flush raises KeyError for one of the keys, whatever else is in the batches
    the flusher would retry forever, and nothing would be flushed any more
    as NotDone, the entry is found by halving, and set aside
    """

    known: tuple[type[CacheError], ...] = (TargetUnavailable, NotDone, *errors)

    async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await call(*args, **kwargs)
        except known:
            raise
        except Exception as error:
            raise NotDone(f"The target raised {error!r}.") from error

    return guarded


@dataclass(frozen=True, slots=True)
class Target:
    """The functions that read and write the database."""

    load: Load
    flush: Flush
    salvage: Salvage
