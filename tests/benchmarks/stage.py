"""Where the measurements happen: the servers, the division of processors, how long and how often.

    first processor    what is measured: this process, and the services that it starts
    the others         Redis, Postgres, and the load generator

With one processor there is nothing to divide, and the figures are worth less.
"""

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta

import httpx
import psutil  # type: ignore[import-untyped]

from app.embedded import Endpoints
from app.metrics import Metrics
from app.settings import Settings
from app.speed.settled_garbage import settled_garbage
from app.wiring import Resources, open_resources
from tests.benchmarks.measurement import WrongAnswer
from tests.eventually import eventually
from tests.fork_server import Started, start
from tests.service import FOURWAYS, Service, free_port, serving

HOUR = "3600"


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    rounds: int
    turn: timedelta
    keys: int
    """The keys of the largest cache."""
    batch: int
    """The rows of a batch import."""


FULL = Size(rounds=5, turn=timedelta(seconds=2), keys=1_000_000, batch=2_000)
QUICK = Size(rounds=3, turn=timedelta(seconds=1), keys=20_000, batch=300)


@dataclass(frozen=True, slots=True)
class Stage:
    """The input of a measurement. `report` is called with what is going on."""

    endpoints: Endpoints
    size: Size
    report: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Server:
    """A running service, and the process that serves."""

    url: str
    process: psutil.Process

    def cpu(self) -> timedelta:
        """Returns the processor time that it has used, in user and in system mode."""
        times = self.process.cpu_times()
        return timedelta(seconds=times.user + times.system)


def processors() -> tuple[Sequence[int], Sequence[int]]:
    """Returns the processors for what is measured, and those for everything else."""
    first, *others = sorted(os.sched_getaffinity(0))
    return [first], others or [first]


@contextmanager
def on(processors: Sequence[int]) -> Iterator[None]:
    """Runs whatever is started in this block on these processors."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def settings(endpoints: Endpoints) -> Settings:
    """Returns the application's own settings, except that nothing becomes stale during a measurement."""
    return Settings(
        _env_file=None,
        redis_url=endpoints.redis_url,
        database_url=endpoints.database_url,
        products_ttl=timedelta(hours=1),
        inventory_ttl=timedelta(hours=1),
    )


@asynccontextmanager
async def library(stage: Stage) -> AsyncIterator[Resources]:
    """Opens what the application opens, in this process, with Redis trusted: its parts without HTTP. The garbage
    collector is settled as in the application, for the peers in this process, too."""
    with settled_garbage():
        async with open_resources(settings(stage.endpoints), Metrics()) as resources:

            async def believed() -> bool:
                return resources.cache.caches[0].trust.held

            await eventually(believed)
            yield resources


@asynccontextmanager
async def service(stage: Stage, command: Sequence[str] = FOURWAYS, **environment: str) -> AsyncIterator[Server]:
    """Runs the application, as `fourways serve` does, or another command."""
    stage.report("starting the service")
    redis_url, database_url = stage.endpoints.redis_url, stage.endpoints.database_url
    lifetimes = {"FOURWAYS_PRODUCTS_TTL": HOUR, "FOURWAYS_INVENTORY_TTL": HOUR}
    environment = lifetimes | environment
    async with serving(redis_url, database_url, command=command, workers=1, **environment) as running:
        yield Server(running.url, psutil.Process(running.process.pid))


@asynccontextmanager
async def peer(stage: Stage, module: str, **environment: str) -> AsyncIterator[Server]:
    """Runs a service of `peers/` in the same way."""
    stage.report(f"starting {module}")
    port = free_port()
    process = start(
        [
            sys.executable, "-m", "uvicorn", f"tests.benchmarks.peers.{module}:app", "--port", str(port),
            "--no-access-log", "--log-level", "warning",
        ],
        {
            **os.environ,
            "REDIS_URL": stage.endpoints.redis_url,
            "DATABASE_URL": stage.endpoints.database_url,
            **environment,
        },
        screen=None,
        session=False,
    )  # fmt: skip
    running = Service(f"http://127.0.0.1:{port}", process)
    try:
        async with running.client() as client:
            await eventually(lambda: _answers(client, process))
        yield Server(running.url, psutil.Process(process.pid))
    finally:
        process.send_signal(signal.SIGTERM)
        await running.ended()


async def _answers(client: httpx.AsyncClient, process: Started) -> bool:
    if process.poll() is not None:
        raise WrongAnswer("A peer ended by itself.")
    try:
        await client.get("/")
    except httpx.TransportError:
        return False
    return True
