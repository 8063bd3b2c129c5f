"""The target: the three functions by which write-behind reads and writes the database. It knows no more of it.

    load       what the database has of some keys, and which of some batches are in its ledger: in one snapshot
    flush      write batches: in one transaction, the ledger and the counters of the batches that are new to it
    salvage    write what can be written of an entry that was refused, and keep the rest as dead letters

The ledger is a table of batch ids. It is what makes exactly-once: whoever flushes a batch for the second time finds it
there.

What can go wrong: each of them raises `TargetUnavailable` when the database is away; flush and salvage raise `NotDone`
when it is there and has not done it; flush raises `Refused` when the database refuses something of what it was given.
Whatever else flush and salvage raise counts as `NotDone`. Each call needs a deadline: one that hangs holds up the rest.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ParamSpec, TypeVar

from ..errors import CacheError, NotDone, TargetUnavailable
from .batch import Batch
from .pending import Pending

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
"""No batch is of before."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the database has: the amounts of keys, and which of some batches are in the ledger. A ledger that drops old
    batches says so: of a batch below its `floor` nobody knows whether it was there; new ids are of `ids_from` at
    least."""

    amounts: Mapping[str, int]
    applied: frozenset[str]
    floor: datetime = BEGINNING
    ids_from: datetime = BEGINNING


Load = Callable[[Sequence[str], Sequence[str]], Awaitable[Standing]]
"""What the database has of some keys and batches, in one snapshot. Raises TargetUnavailable."""

Flush = Callable[[Sequence[Batch]], Awaitable[int]]
"""Adds batches to the counters, each at most once, and answers how many rows it wrote. Raises TargetUnavailable when
the database is away, and Refused when it refuses something of them: then it has written nothing. Raises NotDone when
the database is there and has not done it; where even that is not known, the ledger will show it."""

Salvage = Callable[[Pending, str, int], Awaitable[tuple[int, int]]]
"""Adds what can be added of one entry, and keeps the rest as dead letters, with the reason and how often it was tried:
in one transaction, once. Answers how many rows it wrote, and which amount became dead letters. Raises
TargetUnavailable and NotDone."""


P = ParamSpec("P")
R = TypeVar("R")


def only(call: Callable[P, Awaitable[R]], *errors: type[CacheError]) -> Callable[P, Awaitable[R]]:
    """The call, which raises only these errors, and NotDone in place of any other one:

    flush raises KeyError for one of the keys, whatever else is in the batches
    the flusher tries again and again, and nothing is flushed any more
    as NotDone, the entry is found by halves, and stands aside
    """

    known: tuple[type[CacheError], ...] = (TargetUnavailable, NotDone, *errors)

    async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await call(*args, **kwargs)
        except known:
            raise
        except Exception as error:
            raise NotDone(f"The target has raised {error!r}.") from error

    return guarded


@dataclass(frozen=True, slots=True)
class Target:
    """How to read and write the database."""

    load: Load
    flush: Flush
    salvage: Salvage
