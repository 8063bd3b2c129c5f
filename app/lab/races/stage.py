"""The stage of one case: its processes, on real stores, and the schedules that they play one after another.

    prepare     sends the scripts to Redis
    run         one row in the table, a new process for each actor, the schedule, and a check of both stores
    clear       removes what is left in Redis

What can go wrong: see `director.py`.
"""

import asyncio
import random
from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha1
from pathlib import Path
from typing import cast

import asyncpg
from redis.asyncio import Redis

from app import caching
from app.lab.races.cases import KEY, Case
from app.lab.races.director import Director
from app.lab.races.failure import Failure
from app.lab.races.gate import Gate, Phase
from app.lab.races.idle_loop import IdleLoop
from app.lab.races.process import Process
from app.lab.races.schedule import Schedule
from app.lab.races.stepped_redis import SteppedRedis
from app.lab.races.stepped_table import SteppedTable
from app.lab.races.turn import Choice
from app.lab.races.witness import Witness

TTL = timedelta(minutes=5)


class Stage:
    """Runs schedules of one case. `stores` are the clients of each actor, and of the process that checks at the end."""

    def __init__(self, case: Case, stores: Sequence[tuple[Redis, asyncpg.Connection]], prefix: str) -> None:
        self._case, self._stores, self._prefix = case, stores, prefix
        self._loop = cast("IdleLoop", asyncio.get_running_loop())
        self._gate = Gate()
        self._names: dict[str, str] = {}
        self._used: set[str] = set()

    async def prepare(self) -> None:
        """Sends the scripts to Redis, so that no schedule has to."""
        for file in Path(caching.__file__).parent.rglob("*.lua"):
            source = file.read_bytes()
            self._names[sha1(source).hexdigest()] = file.stem
            await self._redis.script_load(source.decode())
        # The scripts of the published variants are as short as a command. A schedule would send them on first use.
        first = self._processes(Witness(self._case.holds, self._case.behind))[0]
        for script in (value for value in vars(first.strategy).values() if hasattr(value, "sha")):
            self._names[script.sha] = "one script"
            await self._redis.script_load(script.script)

    async def clear(self) -> None:
        """Removes what is left in Redis."""
        if self._used:
            await self._redis.delete(*self._used)
            self._used.clear()

    async def run(self, given: Sequence[Choice], dice: random.Random | None = None) -> Schedule:
        """Runs a schedule: first the given choices, then by the rule, or by the dice."""
        await self.clear()
        case, schedule = self._case, Schedule(len(given))
        self._gate = gate = Gate()
        witness = Witness(case.holds, case.behind)
        *actors, onlooker = processes = self._processes(witness)
        tables = [process.table for process in processes]
        await onlooker.table.reset(KEY)
        before = asyncio.all_tasks()
        self._loop.stop_time()
        gate.phase = Phase.WATCHED
        values = iter(range(1, 100))
        programs = [
            asyncio.create_task(process.live(actor, values)) for process, actor in zip(actors, case.actors, strict=True)
        ]
        director = Director(schedule, given, dice, gate=gate, loop=self._loop, tables=tables, lapse=self._lapse)
        try:
            await director.direct(programs)
        finally:
            lines = tuple(gate.lines)
            gate.phase = Phase.OVER
            left = asyncio.all_tasks() - before
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            self._loop.start_time()
            for table in tables:
                await table.roll_back()
        if not schedule.given_up:
            gate.phase = Phase.OPEN
            await self._lapse()
            await onlooker.look(behind=case.behind)
        names = tuple(actor.name for actor in case.actors)
        schedule.failures = [
            Failure(anomaly, what, schedule.cost, schedule.faults, names, lines)
            for anomaly, what in witness.found.items()
        ]
        return schedule

    @property
    def _redis(self) -> Redis:
        return self._stores[-1][0]

    def _processes(self, witness: Witness) -> list[Process]:
        processes = []
        for place, (redis, connection) in enumerate(self._stores):
            stepped = SteppedRedis(
                redis.connection_pool,
                self._gate,
                place,
                prefix=self._prefix,
                names=self._names,
                shard=self._case.shard,
                used=self._used,
            )
            table = SteppedTable(connection, self._gate, place, witness.commits)
            strategy = self._case.make(stepped, table, self._prefix, TTL)
            processes.append(Process(place, strategy, table, self._gate, witness))
        return processes

    async def _lapse(self) -> None:
        self._gate.say(None, "3 s pass, and every lease ends")
        if leases := [key for key in self._used if key.endswith(":lease")]:
            await self._redis.delete(*leases)
