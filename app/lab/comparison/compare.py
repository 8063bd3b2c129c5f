"""The comparison: one trace, every strategy, the same minutes, the bill.

    a process writes to all, and is killed · the trace, slice by slice, each slice by every strategy in turn · few keys
    under contention · new instances take over from the killed one · the bill

The strategies take turns within the trace, so that what the machine does meanwhile befalls all of them alike; who
begins changes with each slice. Each has keys and rows of its own. Nor may the collector of this process's garbage stop
one of them for a fifth of a second, to look at what the lab remembers of all: that is taken out of its sight.

What can go wrong: `LabError`, `DatabaseUnavailable`. When it is told to stop, what was measured so far is the answer.
"""

import asyncio
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from urllib.parse import urlsplit

from app.embedded import Endpoints
from app.lab.comparison import contention, crash
from app.lab.comparison.bench import Bench, open_bench, remove_keys
from app.lab.comparison.bill import MILLISECOND, Bill, make_bill
from app.lab.comparison.contestant import CONTESTANTS, Contestant
from app.lab.comparison.contestant import Kind as ContestantKind
from app.lab.comparison.costs import Costs
from app.lab.comparison.database_clock import database_clock
from app.lab.comparison.lab_error import LabError
from app.lab.comparison.lab_table import add_rows
from app.lab.comparison.pool import open_pool
from app.lab.comparison.replay import Player, Tally
from app.lab.comparison.schema import lab_schema
from app.lab.comparison.wire import wire
from app.lab.traces.operation import Kind, Operation
from app.lab.traces.trace import Trace

SLICES = 8
BREATH = 1.0
"""Seconds of an open loop that a slice lasts at least: shorter ones would never build a queue."""

Progress = Callable[[str, int, int], object]
"""Told what is being done, how much of all is done, and how much all is, in operations."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a trace is played. `rate` is operations a second, None for a closed loop of `clients`. Of the operations the
    first `warm_up` are played and not billed. `cache_size` is in entries, None without a limit. `drills` says whether
    the two that provoke are run."""

    clients: int = 8
    rate: float | None = None
    warm_up: int = 0
    cache_size: int | None = None
    ttl: timedelta = timedelta(seconds=300)
    db_latency: timedelta = timedelta(0)
    seed: int = 1
    drills: bool = True


@dataclass(frozen=True, slots=True)
class Replayed:
    """What was played of the trace."""

    operations: int
    reads: int
    writes: int
    keys: int

    @classmethod
    def of(cls, operations: Sequence[Operation]) -> "Replayed":
        """Counted."""
        reads = sum(1 for operation in operations if operation.kind is Kind.READ)
        keys = len({operation.key for operation in operations})
        return cls(len(operations), reads, len(operations) - reads, keys)


@dataclass(slots=True)
class Comparison:
    """The answer. `complete` is False where it was told to stop; `relay` is what our four share."""

    trace: Trace
    plan: Plan
    replayed: Replayed
    bills: list[Bill] = field(default_factory=list)
    relay: Costs = field(default_factory=Costs)
    took: timedelta = timedelta(0)
    complete: bool = False

    def as_json(self) -> dict[str, object]:
        """Durations in milliseconds, names in snake_case."""
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


async def compare(
    endpoints: Endpoints,
    trace: Trace,
    plan: Plan,
    *,
    contestants: Sequence[Contestant] = CONTESTANTS,
    stop: asyncio.Event | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Comparison:
    """Plays the trace's operations against all `contestants`. When it returns, both stores are as before.

    `endpoints` names the stores, without the lab's schema. `stop` ends it early. Raises LabError.
    """
    return await _Comparing(trace, plan, contestants, stop or asyncio.Event(), progress).run(endpoints)


class _Comparing:
    def __init__(
        self,
        trace: Trace,
        plan: Plan,
        contestants: Sequence[Contestant],
        stop: asyncio.Event,
        progress: Progress,
    ) -> None:
        self._plan, self._contestants, self._stop, self._progress = plan, contestants, stop, progress
        self._operations = trace.operations
        self._comparison = Comparison(trace, plan, Replayed.of(trace.operations))
        of_drill = contention.ROUNDS * contention.OPERATIONS if plan.drills else 0
        self._total = len(contestants) * (len(trace.operations) + of_drill)
        self._done = 0

    async def run(self, endpoints: Endpoints) -> Comparison:
        began = time.monotonic()
        if "," in urlsplit(endpoints.database_url).netloc:
            raise LabError("DATABASE_URL names several hosts, and the lab's wire leads to one: name the primary alone.")
        # Whoever has the schema has the keys: before that they may be another's, who is at work.
        async with lab_schema(endpoints.database_url) as database_url:
            await remove_keys(endpoints.redis_url)  # What a process has left behind that was killed.
            try:
                await self._run(Endpoints(endpoints.redis_url, database_url))
            finally:
                await remove_keys(endpoints.redis_url)
        self._comparison.took = timedelta(seconds=time.monotonic() - began)
        self._comparison.complete = not self._stop.is_set()
        return self._comparison

    async def _run(self, endpoints: Endpoints) -> None:
        plan, killed = self._plan, None
        self._tell("preparing", 0)
        await self._prepare(endpoints)
        if plan.drills and not self._stop.is_set():
            self._tell("killing a writer", 0)
            killed = await crash.write_and_die(endpoints, self._contestants, plan.ttl, self._stop)
        # What is on its way for half of it in each direction is late by the whole for each round trip.
        if plan.db_latency:
            async with wire(endpoints.database_url, lambda: plan.db_latency.total_seconds() / 2) as late:
                await self._replay(Endpoints(endpoints.redis_url, late))
        else:
            await self._replay(endpoints)
        if killed is None or self._stop.is_set():
            return
        contended = await contention.contend(
            endpoints,
            self._contestants,
            ttl=plan.ttl,
            seed=plan.seed,
            stop=self._stop,
            progress=lambda played: self._tell("under contention", played),
        )
        self._tell("taking over from the killed writer", 0)
        crashed = await crash.take_over(endpoints, self._contestants, plan.ttl, killed, self._stop)
        if not self._stop.is_set():
            self._comparison.bills = [
                replace(bill, contention=contended[bill.name], crash=crashed[bill.name])
                for bill in self._comparison.bills
            ]

    async def _prepare(self, endpoints: Endpoints) -> None:
        keys = list(dict.fromkeys(operation.key for operation in self._operations))
        runs = {"replay": keys, contention.RUN: contention.DRILLED, crash.RUN: crash.DRILLED}
        async with open_pool(endpoints.database_url, 1) as pool:
            for run, of_run in runs.items():
                for each in self._contestants:
                    await add_rows(pool, f"{run}/{each.name}/", of_run, cached=each.kind is ContestantKind.OURS)

    async def _replay(self, endpoints: Endpoints) -> None:
        plan = self._plan
        connections = min(32, max(8, plan.clients)) if plan.rate is None else 32
        async with open_bench(endpoints, self._contestants, "replay", ttl=plan.ttl, connections=connections) as bench:
            clock = await database_clock(bench.pool)
            players = [Player(entrant, bench, cache_size=plan.cache_size) for entrant in bench.entrants]
            async with bench.running():
                bench.relay.reset()
                await self._play(players, self._operations[: plan.warm_up])
                for player in players:
                    player.tally = Tally()
                    player.entrant.costs.reset()
                await self._play(players, self._operations[plan.warm_up :])
            again = await database_clock(bench.pool)
            # Between the two looks either clock may have drifted.
            wrong = max(clock[1], again[1]) + abs(again[0] - clock[0])
            for player in players:
                self._comparison.bills.append(await self._bill(bench, player, ((clock[0] + again[0]) / 2, wrong)))
            self._comparison.relay = bench.relay

    async def _play(self, players: Sequence[Player], operations: Sequence[Operation]) -> None:
        plan = self._plan
        size = max(1, -(-len(operations) // SLICES))
        if plan.rate is not None:
            size = max(size, round(plan.rate * BREATH))
        for turn, start in enumerate(range(0, len(operations), size)):
            slice_ = operations[start : start + size]
            first = turn % len(players)
            for player in [*players[first:], *players[:first]]:
                if self._stop.is_set():
                    return
                self._tell(player.entrant.contestant.name, 0)
                with _out_of_sight():
                    if plan.rate is None:
                        played = await player.closed(slice_, plan.clients, self._stop)
                    else:
                        played = await player.open(slice_, plan.rate, self._stop)
                self._tell(player.entrant.contestant.name, played)

    async def _bill(self, bench: Bench, player: Player, clock: tuple[float, float]) -> Bill:
        judged = await bench.judge(player.entrant, player.oracle, clock)
        return make_bill(player.entrant.contestant, player.oracle.holds, player.tally, player.entrant.costs, judged)

    def _tell(self, what: str, played: int) -> None:
        self._done += played
        self._progress(what, self._done, self._total)


@contextmanager
def _out_of_sight() -> Iterator[None]:
    """In the block, the collector of garbage looks only at what came to be in it."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
