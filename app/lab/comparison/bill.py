"""What a strategy costs, and what it gets wrong: one line of the comparison."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from app.lab.comparison.bench import Judged
from app.lab.comparison.contestant import Contestant
from app.lab.comparison.costs import Costs
from app.lab.comparison.oracle import Verdict
from app.lab.comparison.replay import Tally
from app.lab.strategy import Holds

MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Latency:
    """How long operations took: half of them no longer than `p50`, and so on; None when there were none."""

    mean: timedelta | None = None
    p50: timedelta | None = None
    p99: timedelta | None = None
    p999: timedelta | None = None

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Latency":
        """Returns the nearest-rank percentiles: each is a measured time."""
        if not seconds:
            return cls()
        ranked = sorted(seconds)

        def of_1000(took: int) -> timedelta:
            """Returns the time within which `took` of 1,000 operations ended. In integers: as floats, 0.07 of 100 is
            more than 7."""
            return timedelta(seconds=ranked[-(-took * len(ranked) // 1000) - 1])

        return cls(timedelta(seconds=sum(ranked) / len(ranked)), of_1000(500), of_1000(990), of_1000(999))

    def as_json(self) -> dict[str, float | None]:
        """Returns them in milliseconds."""
        named = {"mean": self.mean, "p50": self.p50, "p99": self.p99, "p999": self.p999}
        return {name: None if took is None else round(took / MILLISECOND, 3) for name, took in named.items()}


@dataclass(frozen=True, slots=True)
class Bill:
    """The bill of one contestant. The replay is what was asked for. The two drills provoke what a quiet run may hide;
    each is None if it was not run."""

    contestant: Contestant
    holds: Holds
    reads: int
    writes: int
    errors: int
    first_error: str
    hit_ratio: float | None
    """The share of reads that did not reach the database; None without reads."""
    database_reads: int
    database_writes: int
    redis_round_trips: int
    redis_bytes: int
    read_latency: Latency
    write_latency: Latency
    coalescing: float | None
    """Acknowledged writes per written row; None when no row was written."""
    replay: Verdict
    contention: Verdict | None = None
    crash: Verdict | None = None
    finals: dict[str, int] = field(default_factory=dict)
    """The database's final value of each written key."""

    @property
    def name(self) -> str:
        """The contestant's name."""
        return self.contestant.name

    @property
    def whole(self) -> Verdict:
        """The verdict of the replay and both drills together."""
        return self.replay + (self.contention or Verdict()) + (self.crash or Verdict())

    @property
    def stale_reads(self) -> int:
        """Stale reads in the replay and the drills, as for the three properties below."""
        return self.whole.stale

    @property
    def longest_stale(self) -> timedelta:
        """The age of the oldest answer."""
        return self.whole.longest_stale

    @property
    def lost(self) -> int:
        """Acknowledged writes that the database does not have."""
        return self.whole.lost

    @property
    def doubled(self) -> int:
        """Writes that the database has more than once: counts added twice, values that came back over a newer one."""
        return self.whole.doubled

    @property
    def cost(self) -> float:
        """The mean time of an operation in this mix, in milliseconds: the remaining criterion among the correct
        ones."""
        means = [(self.read_latency.mean, self.reads), (self.write_latency.mean, self.writes)]
        played = sum(count for mean, count in means if mean is not None)
        spent = sum(mean / MILLISECOND * count for mean, count in means if mean is not None)
        return spent / played if played else 0.0

    def as_json(self) -> dict[str, object]:
        """Returns the bill, with durations in milliseconds."""
        whole = self.whole
        return {
            "name": self.name,
            "kind": self.contestant.kind.name.lower(),
            "holds": self.holds.value,
            "copy": self.contestant.copy,
            "about": self.contestant.about,
            "reads": self.reads,
            "writes": self.writes,
            "errors": self.errors,
            "first_error": self.first_error or None,
            "hit_ratio": None if self.hit_ratio is None else round(self.hit_ratio, 4),
            "database_reads": self.database_reads,
            "database_writes": self.database_writes,
            "redis_round_trips": self.redis_round_trips,
            "redis_bytes": self.redis_bytes,
            "read_ms": self.read_latency.as_json(),
            "write_ms": self.write_latency.as_json(),
            "mean_ms": round(self.cost, 3),
            "coalescing": None if self.coalescing is None else round(self.coalescing, 2),
            **_judged(whole),
            "in_replay": _judged(self.replay),
            "under_contention": None if self.contention is None else _judged(self.contention),
            "after_crash": None if self.crash is None else _judged(self.crash),
        }


def make_bill(contestant: Contestant, holds: Holds, tally: Tally, costs: Costs, judged: Judged) -> Bill:
    """Adds up what was measured."""
    reads = len(tally.reads)
    return Bill(
        contestant=contestant,
        holds=holds,
        reads=reads,
        writes=tally.acknowledged,
        errors=tally.errors,
        first_error=tally.first_error,
        hit_ratio=max(0.0, 1 - costs.asked / reads) if reads else None,
        database_reads=costs.reads,
        database_writes=costs.writes,
        redis_round_trips=costs.traffic.round_trips,
        redis_bytes=costs.traffic.bytes,
        read_latency=Latency.of(tally.reads),
        write_latency=Latency.of(tally.writes),
        coalescing=tally.acknowledged / judged.rows if judged.rows else None,
        replay=judged.verdict,
        finals=judged.finals,
    )


def _judged(verdict: Verdict) -> dict[str, object]:
    return {
        "stale_reads": verdict.stale,
        "longest_stale_ms": round(verdict.longest_stale / MILLISECOND, 3),
        "uncommitted_reads": verdict.uncommitted,
        "lost_writes": verdict.lost,
        "doubled_writes": verdict.doubled,
    }
