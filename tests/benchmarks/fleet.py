"""What a fleet of idle processes costs: 1, 3, 10 and 30 of them on one Redis and one Postgres.

Nobody calls them. Each still polls, so that it knows of every change, and can be trusted when somebody does.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from unittest.mock import patch

import asyncpg
import psutil  # type: ignore[import-untyped]
from redis.asyncio import Redis

from app.embedded import Endpoints, embedded_servers
from app.schema import migrate
from tests.benchmarks.measurement import Bar, Chart, Goal, Result, Table, spread
from tests.benchmarks.stage import Server, Stage, on, processors, service
from tests.open_directory import open_directory

QUESTION = "What do idle processes cost Postgres and Redis?"
SIZES = (1, 3, 10, 30)
CONNECTIONS = 400
"""The connections that Postgres allows here: 30 processes have more open than its usual 100."""
AT_ONCE = 3
"""How many processes are started at a time."""
LENGTH = 5
"""Turns for which the fleet is watched in each round: Postgres' own counters are up to a second late."""
ALLOWED = 5.0
"""Percent of one processor that the largest fleet may cost Postgres."""

STATEMENTS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
SESSIONS = """
SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name = 'fourways'
"""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was counted since the servers began: statements and commands, and seconds of processor time."""

    at: float
    statements: float
    commands: float
    postgres: float
    redis: float
    services: float

    def since(self, before: "Reading") -> "Reading":
        """Returns what was counted in each second since `before`."""
        took = self.at - before.at
        return Reading(
            took,
            (self.statements - before.statements) / took,
            (self.commands - before.commands) / took,
            (self.postgres - before.postgres) / took,
            (self.redis - before.redis) / took,
            (self.services - before.services) / took,
        )


@dataclass(frozen=True, slots=True)
class Watched:
    """A fleet of this size: what it cost in each round, and the connections it has open."""

    size: int
    rounds: Sequence[Reading]
    sessions: int
    clients: int

    def each(self, value: Callable[[Reading], float]) -> list[float]:
        """Returns a value of each round."""
        return [value(reading) for reading in self.rounds]


class Meter:
    """Reads the counters of both servers, and of the operating system."""

    def __init__(self, sql: asyncpg.Connection, redis: Redis, postgres: psutil.Process) -> None:
        self._sql, self._redis, self._postgres = sql, redis, postgres

    async def read(self, fleet: Sequence[Server]) -> Reading:
        """Returns what was counted until now."""
        cpu, stats = await self._redis.info("cpu"), await self._redis.info("stats")
        return Reading(
            asyncio.get_running_loop().time(),
            float(await self._sql.fetchval(STATEMENTS)),
            float(stats["total_commands_processed"]),
            _used(self._postgres),
            float(cpu["used_cpu_user"] + cpu["used_cpu_sys"]),
            sum(server.cpu().total_seconds() for server in fleet),
        )

    async def connections(self) -> tuple[int, int]:
        """Returns how many connections the fleet has to Postgres and to Redis."""
        clients = (await self._redis.info("clients"))["connected_clients"]
        return int(await self._sql.fetchval(SESSIONS)), int(clients) - 1


async def measure(stage: Stage) -> Result:
    """Watches each fleet for some rounds. The fleets grow: those that run already stay."""
    watched = []
    async with _servers() as endpoints, _meter(endpoints) as meter, AsyncExitStack() as running:
        stage = Stage(endpoints, stage.size, stage.report)
        fleet: list[Server] = []
        for size in SIZES:
            while len(fleet) < size:
                more = min(AT_ONCE, size - len(fleet))
                fleet += await asyncio.gather(*(running.enter_async_context(service(stage)) for _ in range(more)))
            rounds = []
            for number in range(stage.size.rounds + 1):
                stage.report(f"{size} processes, {f'round {number}' if number else 'which settle'}")
                before = await meter.read(fleet)
                await asyncio.sleep(LENGTH * stage.size.turn.total_seconds())
                rounds.append((await meter.read(fleet)).since(before))
            watched.append(Watched(size, rounds[1:], *await meter.connections()))
    most = watched[-1]
    return Result(
        "fleet",
        QUESTION,
        [Goal(f"% of one processor for Postgres, with {most.size} processes", most.each(_postgres), ALLOWED, True)],
        [
            Table(
                "Idle processes",
                ["", *(f"{each.size}" for each in watched)],
                [
                    ["statements/s", *(f"{median(each.each(_statements)):,.0f}" for each in watched)],
                    ["commands of Redis/s", *(f"{median(each.each(_commands)):,.0f}" for each in watched)],
                    ["connections to Postgres", *(f"{each.sessions}" for each in watched)],
                    ["connections to Redis", *(f"{each.clients}" for each in watched)],
                    ["Postgres, % of one processor", *(spread(each.each(_postgres)) for each in watched)],
                    ["Redis, % of one processor", *(spread(each.each(_redis)) for each in watched)],
                    [
                        "a process, % of one processor",
                        *(f"{median(each.each(_service(each))):.2f}" for each in watched),
                    ],
                ],
            )
        ],
        Chart(
            "Postgres, % of one processor, for idle processes",
            [Bar(f"{each.size}", each.each(_postgres)) for each in watched],
        ),
    )


def _statements(reading: Reading) -> float:
    return reading.statements


def _commands(reading: Reading) -> float:
    return reading.commands


def _postgres(reading: Reading) -> float:
    return 100 * reading.postgres


def _redis(reading: Reading) -> float:
    return 100 * reading.redis


def _service(watched: Watched) -> Callable[[Reading], float]:
    return lambda reading: 100 * reading.services / watched.size


def _used(postgres: psutil.Process) -> float:
    """Returns the seconds of processor time of Postgres and its sessions, those that have ended included."""
    total = 0.0
    for process in (postgres, *postgres.children()):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        ended = times.children_user + times.children_system if process == postgres else 0.0
        total += times.user + times.system + ended
    return total


@asynccontextmanager
async def _servers() -> AsyncIterator[Endpoints]:
    """Starts a Redis and a Postgres of its own, with room for the connections of the largest fleet."""
    with (
        open_directory() as directory,
        patch("app.embedded.postgres_server.CONNECTIONS", CONNECTIONS),
        on(processors()[1]),
        embedded_servers(Path(directory)) as endpoints,
        on([*processors()[0], *processors()[1]]),
    ):
        await asyncio.to_thread(migrate, endpoints.database_url)
        yield endpoints


@asynccontextmanager
async def _meter(endpoints: Endpoints) -> AsyncIterator[Meter]:
    sql = await asyncpg.connect(endpoints.database_url, server_settings={"application_name": "meter"})
    try:
        async with Redis.from_url(endpoints.redis_url, protocol=2, single_connection_client=True) as redis:
            pid = await sql.fetchval("SELECT pg_backend_pid()")
            yield Meter(sql, redis, psutil.Process(pid).parent())
    finally:
        await sql.close()
