"""One comparison of all, with both drills: the published variants show their defects and ours none, and all adds up.

It is played once, and each test checks another side of it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from app.embedded import Endpoints
from app.lab.comparison import crash
from app.lab.comparison.bill import Bill
from app.lab.comparison.compare import compare
from app.lab.comparison.comparison import Comparison
from app.lab.comparison.contestant import CONTESTANTS, Kind
from app.lab.comparison.entrant import PREFIX
from app.lab.comparison.killed import Killed
from app.lab.comparison.oracle import Verdict
from app.lab.comparison.plan import Plan
from app.lab.comparison.schema import SCHEMA
from app.lab.published import PUBLISHED
from app.lab.traces.operation import Kind as OperationKind
from app.lab.traces.trace import Trace
from app.lab.traces.workload import make

FINE = Verdict()


@dataclass(frozen=True, slots=True)
class Run:
    """What was played, the result, and what the process reported that the crash drill killed."""

    trace: Trace
    comparison: Comparison
    killed: Killed
    left: tuple[Sequence[bytes], int]
    """The lab's keys and schemas that were left at the end."""

    @property
    def bills(self) -> Mapping[str, Bill]:
        """The bills by name."""
        return {bill.name: bill for bill in self.comparison.bills}


@pytest.fixture(scope="module")
async def run(servers: Endpoints) -> Run:
    """All contestants, for all the tests."""
    heard: list[Killed] = []
    right = crash.write_and_die

    async def write_and_die(*arguments: Any) -> Killed:
        heard.append(await right(*arguments))
        return heard[-1]

    trace = make("ycsb-a", requests=300, keys=50, seed=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crash, "write_and_die", write_and_die)
        # The child completes its writes however busy the machine is.
        patch.setattr(crash, "PATIENCE", timedelta(minutes=4))
        comparison = await compare(servers, trace, Plan())
    (killed,) = heard
    return Run(trace, comparison, killed, await _left(servers))


async def _left(servers: Endpoints) -> tuple[Sequence[bytes], int]:
    sql = await asyncpg.connect(servers.database_url)
    schemas = await sql.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = $1", SCHEMA)
    await sql.close()
    async with Redis.from_url(servers.redis_url) as redis:
        return [key async for key in redis.scan_iter(match=f"{PREFIX}*")], schemas


async def test_published_variants_show_their_defects_and_ours_show_none(run: Run) -> None:
    assert run.comparison.complete
    assert [bill.name for bill in run.comparison.bills] == [contestant.name for contestant in CONTESTANTS]
    for bill in run.comparison.bills:
        whole = bill.whole
        wrong = {"stale": whole.stale, "uncommitted": whole.uncommitted, "lost": whole.lost, "doubled": whole.doubled}
        if bill.contestant.kind is Kind.PUBLISHED:
            assert sum(wrong.values()) > 0, bill.name
        else:
            assert set(wrong.values()) == {0}, (bill.name, wrong)
        assert bill.errors == 0, (bill.name, bill.first_error)
        assert (bill.reads, bill.writes) == (run.trace.reads, run.trace.writes)
    assert run.bills["write-through, concurrent"].whole.uncommitted > 0
    assert run.bills["write-behind, dirty keys"].lost > 0


async def test_under_contention_each_published_variant_fails_and_the_others_are_right(run: Run) -> None:
    found = {name: bill.contention for name, bill in run.bills.items()}
    for contestant in CONTESTANTS:
        verdict = found[contestant.name]
        assert verdict is not None
        if contestant.kind is not Kind.PUBLISHED:
            assert verdict == FINE, contestant.name
        elif "dirty" in contestant.name:
            assert verdict.lost > 0
        else:
            assert verdict.stale > 0, contestant.name
    for name in ("write-through, concurrent", "write-through, concurrent with catch"):
        assert found[name].uncommitted > 0, name  # type: ignore[union-attr]
    assert {name for name, verdict in found.items() if verdict != FINE} == {
        name for name, variant in PUBLISHED.items() if variant.shows
    }


async def test_published_variants_lose_what_was_in_flight_and_ours_lose_nothing(run: Run) -> None:
    found = {}
    for contestant in CONTESTANTS:
        found[contestant.name] = verdict = run.bills[contestant.name].crash or FINE
        assert run.bills[contestant.name].crash is not None
        assert run.killed.acknowledged(contestant.name) >= crash.ENOUGH, contestant.name
        if contestant.kind is not Kind.PUBLISHED:
            assert verdict == FINE, contestant.name
        assert verdict.doubled == 0, contestant.name
    # What it had popped when it was killed is gone; what the repaired one had moved is flushed by the next instance.
    assert found["write-behind, list"].lost > 0
    assert found["write-behind, stream"].lost > 0
    # The cache has it, and the database never got it.
    assert found["write-through, concurrent"].uncommitted > 0
    assert found["write-through, concurrent with catch"].uncommitted > 0


async def test_at_the_end_the_database_has_what_was_written(run: Run) -> None:
    written = Counter(operation.key for operation in run.trace.operations if operation.kind is OperationKind.WRITE)
    for bill in run.comparison.bills:
        if bill.name in ("write-behind", "write-behind, dirty keys compared"):
            assert bill.finals == written, bill.name
        assert bill.finals.keys() == written.keys(), bill.name


async def test_costs_match_what_each_strategy_does(run: Run) -> None:
    trace, bills = run.trace, run.bills
    plain, behind = bills["no cache"], bills["write-behind"]
    assert (plain.database_reads, plain.database_writes) == (trace.reads, trace.writes)
    assert (plain.hit_ratio, plain.redis_round_trips, plain.redis_bytes) == (0.0, 0, 0)
    assert bills["cache-aside"].database_writes == trace.writes
    assert bills["write-through"].database_writes == 2 * trace.writes
    assert behind.database_writes < trace.writes
    assert (behind.coalescing or 0) > 1
    assert (bills["cache-aside, TTL only"].hit_ratio or 0) > (bills["cache-aside"].hit_ratio or 0) > 0


async def test_it_leaves_nothing_behind(run: Run) -> None:
    assert run.left == ([], 0)
