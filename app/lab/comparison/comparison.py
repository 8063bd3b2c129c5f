"""The result of a comparison: a bill for each contestant, for one trace and one plan."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from app.lab.comparison.bill import MILLISECOND, Bill
from app.lab.comparison.costs import Costs
from app.lab.comparison.plan import Plan
from app.lab.traces.operation import Kind, Operation
from app.lab.traces.trace import Trace


@dataclass(frozen=True, slots=True)
class Replayed:
    """What was played of the trace."""

    operations: int
    reads: int
    writes: int
    keys: int

    @classmethod
    def of(cls, operations: Sequence[Operation]) -> "Replayed":
        """Counts these operations."""
        reads = sum(1 for operation in operations if operation.kind is Kind.READ)
        keys = len({operation.key for operation in operations})
        return cls(len(operations), reads, len(operations) - reads, keys)


@dataclass(slots=True)
class Comparison:
    """What was measured. `complete` is False when it was interrupted; `relay` is what our four share."""

    trace: Trace
    plan: Plan
    replayed: Replayed
    bills: list[Bill] = field(default_factory=list)
    relay: Costs = field(default_factory=Costs)
    took: timedelta = timedelta(0)
    complete: bool = False

    def as_json(self) -> dict[str, object]:
        """Returns the result, with durations in milliseconds and names in snake_case."""
        plan, replayed = self.plan, self.replayed
        return {
            "trace": {
                "name": self.trace.name,
                "reads": self.trace.reads,
                "writes": self.trace.writes,
                "keys": self.trace.keys,
                "length": self.trace.length,
                "whole": self.trace.whole,
                "exact": self.trace.exact,
                "skipped": self.trace.skipped,
            },
            "replayed": {
                "operations": replayed.operations,
                "reads": replayed.reads,
                "writes": replayed.writes,
                "keys": replayed.keys,
                "warm_up": plan.warm_up,
                "clients": plan.clients if plan.rate is None else None,
                "rate": plan.rate,
                "cache_size": plan.cache_size,
                "ttl_ms": plan.ttl / MILLISECOND,
                "db_latency_ms": plan.db_latency / MILLISECOND,
                "seed": plan.seed,
                "took_ms": round(self.took / MILLISECOND),
                "complete": self.complete,
            },
            "strategies": [bill.as_json() for bill in self.bills],
            "relay": {
                "database_statements": self.relay.reads,
                "redis_round_trips": self.relay.traffic.round_trips,
                "redis_bytes": self.relay.traffic.bytes,
            },
        }
