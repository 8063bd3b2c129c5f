"""The comparison: one trace, every strategy, the same minutes, the bill.

    a process writes to all, and is killed · the trace, slice by slice, each slice by every strategy in turn · few keys
    under contention · new instances take over from the killed process · the bill

The strategies take turns within the trace, so that a busy moment of the machine affects all of them alike; each slice
starts with a different one. Each has its own keys and rows. The lab's own objects are hidden from this process' garbage
collector, which would otherwise stop one strategy for a fifth of a second to scan them.

What can go wrong: `LabError`, `DatabaseUnavailable`. An interrupted comparison returns what was measured so far.
"""

import asyncio
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

from app.database_url import DatabaseUrl
from app.embedded import Endpoints
from app.lab.comparison import contention, crash
from app.lab.comparison.bench import Bench, open_bench, remove_keys
from app.lab.comparison.bill import Bill, make_bill
from app.lab.comparison.comparison import Comparison, Replayed
from app.lab.comparison.contestant import CONTESTANTS, Contestant
from app.lab.comparison.contestant import Kind as ContestantKind
from app.lab.comparison.database_clock import database_clock
from app.lab.comparison.lab_error import LabError
from app.lab.comparison.lab_table import add_rows
from app.lab.comparison.plan import Plan
from app.lab.comparison.pool import open_pool
from app.lab.comparison.replay import Player, Tally
from app.lab.comparison.schema import lab_schema
from app.lab.comparison.wire import wire
from app.lab.traces.operation import Operation
from app.lab.traces.trace import Trace

SLICES = 8
BREATH = 1.0
"""Minimum duration of an open loop's slice, in seconds: a shorter one would never build a queue."""

Progress = Callable[[str, int, int], object]
"""Called with the current activity, the number of finished operations, and their total."""


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
        if len(DatabaseUrl.read(endpoints.database_url).places) > 1:
            raise LabError("DATABASE_URL names several hosts, and the lab's wire leads to one: name the primary alone.")
        # The schema's owner owns the keys. Before the schema is ours, they may belong to another comparison that still
        # runs.
        async with lab_schema(endpoints.database_url) as database_url:
            await remove_keys(endpoints.redis_url)  # What a killed process has left behind.
            try:
                await self._run(Endpoints(endpoints.redis_url, database_url))
            finally:
                await remove_keys(endpoints.redis_url)
        self._comparison.took = timedelta(seconds=time.monotonic() - began)
        self._comparison.complete = not self._stop.is_set()
        return self._comparison

    async def _run(self, endpoints: Endpoints) -> None:
        plan, killed = self._plan, None
        self._report("preparing", 0)
        await self._prepare(endpoints)
        if plan.drills and not self._stop.is_set():
            self._report("killing a writer", 0)
            killed = await crash.write_and_die(endpoints, self._contestants, plan.ttl, self._stop)
        # Half of the latency in each direction adds up to all of it per round trip.
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
            progress=lambda played: self._report("under contention", played),
        )
        self._report("taking over from the killed writer", 0)
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
            # Either clock may have drifted between the two measurements.
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
                self._report(player.entrant.contestant.name, 0)
                with _out_of_sight():
                    if plan.rate is None:
                        played = await player.closed(slice_, plan.clients, self._stop)
                    else:
                        played = await player.open(slice_, plan.rate, self._stop)
                self._report(player.entrant.contestant.name, played)

    async def _bill(self, bench: Bench, player: Player, clock: tuple[float, float]) -> Bill:
        judged = await bench.judge(player.entrant, player.oracle, clock)
        return make_bill(player.entrant.contestant, player.oracle.holds, player.tally, player.entrant.costs, judged)

    def _report(self, what: str, played: int) -> None:
        self._done += played
        self._progress(what, self._done, self._total)


@contextmanager
def _out_of_sight() -> Iterator[None]:
    """In the block, the garbage collector scans only objects that were created in it."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
