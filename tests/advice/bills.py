"""Bills without a store: the cost of each strategy, step by step, on the operations of a workload."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from app.advice import Choice
from app.lab.traces.operation import Kind, Operation
from app.lab.traces.workload import make

NEVER, SECOND, MINUTE = timedelta(0), timedelta(seconds=1), timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Bill:
    """A bill in the form that `pick` accepts."""

    name: str
    cost: float
    stale_reads: int = 0
    longest_stale: timedelta = NEVER
    lost: int = 0
    doubled: int = 0


# The cost of a step, if the shortest round trip to Redis costs 1: roughly as the lab measures it on one machine.
HIT, LOAD, SAVE, OUTBOX = 1.4, 5.0, 8.0, 7.0


def bills_of(workload: str, reads: float | None, ttl: timedelta) -> Iterator[Bill]:
    """Yields the bill of each strategy on the operations of a workload. The first half only warms the caches."""
    operations = make(workload, requests=20_000, reads=reads).operations
    for name, hit, miss, write, keeps in (
        ("no cache", LOAD, LOAD, SAVE, False),
        (Choice.CACHE_ASIDE, HIT, 3 + LOAD, SAVE + OUTBOX + 1, False),
        (Choice.READ_THROUGH, HIT, 3 + LOAD, SAVE + OUTBOX + 1, False),
        (Choice.TTL_ONLY, HIT, 2 + LOAD, SAVE, True),
        (Choice.WRITE_THROUGH, HIT, 3 + LOAD, SAVE + OUTBOX + 6, True),
        (Choice.WRITE_BEHIND, 1, 2 + LOAD, 2, True),
    ):
        yield _bill(name, operations, hit, miss, write, keeps, ttl)


def _bill(
    name: str, operations: Sequence[Operation], hit: float, miss: float, write: float, keeps: bool, ttl: timedelta
) -> Bill:
    cached: set[str] = set()
    old: set[str] = set()
    spent = 0.0
    stale = 0
    for place, operation in enumerate(operations):
        key = operation.key
        if operation.kind is Kind.WRITE:
            cost = write
            old.add(key)
            if name == Choice.WRITE_THROUGH:
                cached.add(key)
            elif not keeps:
                cached.discard(key)
        elif key in cached:
            cost = hit
            stale += name == Choice.TTL_ONLY and key in old
        else:
            cost = miss
            cached.add(key)
            old.discard(key)
        if place >= len(operations) // 2:
            spent += cost
    return Bill(name, spent, stale_reads=stale, longest_stale=ttl if stale else NEVER)
