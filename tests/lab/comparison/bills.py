"""A comparison with made-up figures, to be displayed."""

from datetime import timedelta

from app.lab.comparison.bill import Bill, Latency
from app.lab.comparison.comparison import Comparison, Replayed
from app.lab.comparison.contestant import CONTESTANTS, Contestant, Kind
from app.lab.comparison.oracle import Verdict
from app.lab.comparison.plan import Plan
from app.lab.strategy import Holds
from app.lab.traces.operation import Kind as OperationKind
from app.lab.traces.operation import Operation
from app.lab.traces.trace import Trace

WRONG = Verdict(stale=12_345, longest_stale=timedelta(seconds=9.87), uncommitted=2_345, lost=1_234, doubled=321)


def compared(
    name: str = "made-up.csv", *, plan: Plan | None = None, writes: int = 500, complete: bool = True
) -> Comparison:
    """Returns a comparison of all contestants, of which the published ones are as wrong as can be. 1,000 reads and
    1,000 writes were played; the trace has 500 reads and `writes`."""
    operations = 1_000 * [Operation(OperationKind.READ, "key"), Operation(OperationKind.WRITE, "key")]
    trace = Trace(name, operations, reads=500, writes=writes, keys=1)
    bills = [bill(contestant, 1 + place) for place, contestant in enumerate(CONTESTANTS)]
    return Comparison(trace, plan or Plan(), Replayed.of(operations), bills, complete=complete)


def bill(contestant: Contestant, ms: float) -> Bill:
    """Returns a bill with a median of `ms` milliseconds."""
    latency = Latency(*(timedelta(milliseconds=times * ms) for times in (1.5, 1, 7, 77.7)))
    published = contestant.kind is Kind.PUBLISHED
    return Bill(
        contestant=contestant,
        holds=Holds.COUNTS if contestant.name == "write-behind" else Holds.VALUES,
        reads=1_000,
        writes=1_000,
        errors=0,
        first_error="",
        hit_ratio=0.876,
        database_reads=123_456,
        database_writes=98_765,
        redis_round_trips=1_234_567,
        redis_bytes=123_456_789,
        read_latency=latency,
        write_latency=latency,
        coalescing=1.5,
        replay=WRONG if published else Verdict(),
        contention=Verdict(),
        crash=Verdict(),
    )
