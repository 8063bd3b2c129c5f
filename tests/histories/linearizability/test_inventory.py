"""Inventory over HTTP is linearizable for each SKU, whatever fails: stores cut, silent and killed, workers stopped and
killed.

Each seed is a separate history on separate SKUs: eight clients read, set, adjust, remove and create, three worker
processes answer, and a nemesis injects faults meanwhile. A call of unknown outcome may have happened or not; all other
answers must be what one counter could have said.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import pytest

from tests.eventually import eventually
from tests.faults.nemesis import Nemesis, Strike
from tests.faults.postgres_wire import PostgresWire
from tests.faults.redis_wire import RedisWire
from tests.faults.stores import Stores
from tests.histories.linearizability.checker import Verdict, check, explain
from tests.histories.linearizability.client import Client
from tests.histories.linearizability.http_target import HttpTarget
from tests.histories.linearizability.operation import Answer, Kind, Operation
from tests.histories.linearizability.recorder import Recorder
from tests.process_tree import ProcessTree
from tests.service import Service, serving
from tests.topologies.topology import seeded

SEEDS = {
    "redis-direct": range(60),
    "redis-pooled": range(100, 120),
    "sentinel-direct": range(200, 210),
    "sentinel-pooled": range(300, 310),
}
SAMPLE = {
    # A smallest set that covers every fault of the stores and of the workers.
    "redis-direct": (0, 2, 13, 14),
    # Postgres is silent, crashes, and does not answer a COMMIT.
    "redis-pooled": (119,),
}
CLIENTS = 8
WORKERS = 3
SECONDS = 10.0
"""Time limit in seconds for the check of one SKU."""
ENOUGH = 200
"""The clients continue until this many calls were answered, or longer, until the last fault is healed."""
HASTY = {"FOURWAYS_REDIS_TIMEOUT": "0.25", "FOURWAYS_DATABASE_TIMEOUT": "1"}
"""Shorter than the faults, so that timeouts expire in the middle of them."""


@pytest.fixture(scope="module")
async def service(redis_wire: RedisWire, postgres_wire: PostgresWire) -> AsyncIterator[Service]:
    """The service, which reaches its stores only through wires."""
    async with serving(redis_wire.url, postgres_wire.url, workers=WORKERS, **HASTY) as service:
        yield service


@pytest.fixture(scope="module")
def verdicts() -> Counter[Verdict]:
    """The number of each verdict, for every SKU, over all seeds."""
    return Counter()


@pytest.mark.parametrize(("topology", "seed"), seeded(SEEDS, SAMPLE), indirect=["topology"], scope="package")
async def test_each_sku_is_linearizable_whatever_fails(
    stores: Stores,
    redis_wire: RedisWire,
    postgres_wire: PostgresWire,
    service: Service,
    verdicts: Counter[Verdict],
    capsys: pytest.CaptureFixture[str],
    seed: int,
) -> None:
    randomness, recorder = random.Random(seed), Recorder()
    nemesis = Nemesis(stores, redis_wire, postgres_wire, service, random.Random(randomness.random()))
    skus = [f"S{seed}-{number}" for number in range(3)]
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        over = asyncio.Event()
        for number in range(CLIENTS):
            group.create_task(_shop(service, f"c{number}", recorder, random.Random(randomness.random()), skus, over))
        await nemesis.strike()
        await eventually(lambda: _have(recorder, ENOUGH))
        over.set()
    struck = time.monotonic()
    stored, told = await _mended(stores, service, recorder, skus)
    healed = time.monotonic()
    found = {sku: check(recorder.histories[sku], seconds=SECONDS) for sku in skus}
    verdicts.update(found.values())
    with capsys.disabled():
        _report(seed, recorder, nemesis.strikes, found, [struck - began, healed - struck, time.monotonic() - healed])
    for sku, verdict in found.items():
        assert verdict is not Verdict.NOT_LINEARIZABLE, f"{sku}: {explain(recorder.histories[sku], seconds=SECONDS)}"
    assert told == [stored] * WORKERS
    assert recorder.broken == []
    _check_worth(recorder, nemesis.strikes)


def test_nearly_every_history_gets_a_verdict(verdicts: Counter[Verdict]) -> None:
    assert verdicts[Verdict.UNDECIDED] <= verdicts.total() / 20


async def _shop(
    service: Service, name: str, recorder: Recorder, randomness: random.Random, skus: Sequence[str], over: asyncio.Event
) -> None:
    """Calls until `over` is set, now and then on a new connection, and so perhaps at another worker."""
    target = HttpTarget(service.url)
    client = Client(name, target, recorder, randomness)
    try:
        while not over.is_set():
            await client.call(skus)
            if randomness.random() < 0.2:
                await target.close()
    finally:
        await target.close()


async def _have(recorder: Recorder, answers: int) -> bool:
    return recorder.outcomes["answered"] >= answers


async def _mended(
    stores: Stores, service: Service, recorder: Recorder, skus: Sequence[str]
) -> tuple[list[Answer], list[list[Answer]]]:
    """Returns what Postgres has when all faults are healed, and what each worker says. Both are part of the history."""
    sql = await asyncpg.connect(stores.endpoints.database_url)
    stored: list[Answer] = []
    told: list[list[Answer]] = []

    async def it_stays_as_it_is() -> bool:
        nonlocal stored, told
        stored = [await _row(sql, recorder, sku) for sku in skus]
        answers = [
            [await recorder.record(target, f"worker {number}", sku, Kind.READ) for sku in skus]
            for number, target in enumerate(targets)
        ]
        told = [[one for one in each if one is not None] for each in answers]
        # A worker may still be without its stores, and a call of unknown outcome may still happen.
        return all(len(each) == len(skus) for each in told) and stored == [
            await _row(sql, recorder, sku) for sku in skus
        ]

    async with _each_worker(service) as targets:
        await eventually(it_stays_as_it_is)
    await sql.close()
    return stored, told


@asynccontextmanager
async def _each_worker(service: Service) -> AsyncIterator[list[HttpTarget]]:
    """Yields a connection to each worker, once all of them are found."""
    async with AsyncExitStack() as stack:
        found: dict[int, HttpTarget] = {}

        async def all_are_found() -> bool:
            target = HttpTarget(service.url)
            stack.push_async_callback(target.close)
            await Recorder().record(target, "", "NONE", Kind.READ)
            for worker in ProcessTree.of(service.process.pid).workers():
                if any(one.raddr and one.raddr.port == target.port for one in worker.net_connections("tcp")):
                    found.setdefault(worker.pid, target)
            return len(found) == WORKERS

        await eventually(all_are_found)
        yield list(found.values())


async def _row(sql: asyncpg.Connection, recorder: Recorder, sku: str) -> Answer:
    start = time.monotonic()
    row = await sql.fetchrow("SELECT quantity, version FROM stock WHERE sku = $1", sku)
    answer = Answer(404) if row is None else Answer(200, row["quantity"], row["version"])
    recorder.histories[sku].append(Operation(Kind.READ, 0, start, time.monotonic(), answer, "Postgres"))
    return answer


def _check_worth(recorder: Recorder, strikes: Sequence[Strike]) -> None:
    """A history proves nothing if most calls were not answered, or nobody tried to write during the faults."""
    outcomes = recorder.outcomes
    assert outcomes["answered"] > outcomes.total() / 2, outcomes
    tried = [*recorder.refused, *(one for history in recorder.histories.values() for one in history)]
    writes = [one for one in tried if one.kind is not Kind.READ]
    hit = [strike for strike in strikes if any(_overlap(strike, write) for write in writes)]
    assert len(hit) >= len(strikes) / 2, strikes


def _overlap(strike: Strike, write: Operation) -> bool:
    return write.start <= strike.end and write.end >= strike.start


def _report(
    seed: int, recorder: Recorder, strikes: Sequence[Strike], found: dict[str, Verdict], seconds: Sequence[float]
) -> None:
    outcomes = recorder.outcomes
    faults = ", ".join(f"{name} {number}" for name, number in sorted(Counter(one.fault for one in strikes).items()))
    longest = max(len(history) for history in recorder.histories.values())
    verdicts = ", ".join(f"{number} {verdict}" for verdict, number in Counter(found.values()).items())
    print(
        f"\nSeed {seed:2}: {outcomes.total()} ops ({longest} on one SKU), {outcomes['answered']} answered,"
        f" {outcomes['refused']} refused, {outcomes['unknown']} unknown; {faults}; {seconds[0]:.1f} s + healing"
        f" {seconds[1]:.1f} s + check {seconds[2]:.2f} s: {verdicts}",
        end="",
    )
