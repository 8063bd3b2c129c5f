"""A read of a user or a product that starts after a write was answered is never older than that write, on any instance,
whatever fails: stores cut, silent, killed, and gone back in time, workers stopped and killed.

Clients change rows and read them through three workers while a nemesis injects faults. Other rows are changed in SQL:
the test prints how long those changes take to appear, and how long after a fault was healed.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
import pytest

from tests.eventually import eventually
from tests.faults.nemesis import Nemesis, Strike
from tests.faults.postgres_wire import PostgresWire
from tests.faults.redis_wire import RedisWire
from tests.faults.stores import Stores
from tests.histories.staleness.ledger import Ledger
from tests.keep_alive import Answer, KeepAlive
from tests.keyed import HUNG_UP
from tests.service import Service, serving
from tests.topologies.topology import seeded

SEEDS = {
    "redis-direct": range(40),
    "redis-pooled": range(100, 120),
    "sentinel-direct": range(200, 210),
    "sentinel-pooled": range(300, 310),
}
SAMPLE = {
    # A smallest set that covers every fault of the stores and of the workers.
    "redis-direct": (0, 2, 13, 14),
}
HASTY = {
    "FOURWAYS_REDIS_TIMEOUT": "0.25",
    "FOURWAYS_DATABASE_TIMEOUT": "1",
    # So short that entries expire, are refreshed, and are served stale, in the middle of everything.
    "FOURWAYS_USERS_TTL": "0.5",
    "FOURWAYS_ABSENT_TTL": "0.5",
}
"""Shorter than the faults, so that timeouts expire in the middle of them."""
READERS = 8
PACE = 0.01
"""Seconds between two calls of a client."""
PATIENCE = 10.0
ENOUGH = 500


@pytest.fixture(scope="module")
async def service(redis_wire: RedisWire, postgres_wire: PostgresWire) -> AsyncIterator[Service]:
    """The service, which reaches its stores only through wires."""
    async with serving(redis_wire.url, postgres_wire.url, workers=3, **HASTY) as service:
        yield service


class Client:
    """Calls on one connection, and on a new one when that is lost. Now and then it changes the connection anyway, and
    so perhaps the worker."""

    def __init__(self, service: Service, ledger: Ledger, randomness: random.Random) -> None:
        self._service, self._ledger, self._randomness = service, ledger, randomness
        self._connection: KeepAlive | None = None

    async def call(self, method: str, path: str, body: object = None) -> Answer | None:
        """Returns the answer; None when the call was not done, or nobody knows."""
        await asyncio.sleep(PACE)
        if self._randomness.random() < 0.05:
            await self.close()
        try:
            async with asyncio.timeout(PATIENCE):
                if self._connection is None:
                    self._connection = await KeepAlive.to(self._service.url)
                answer = await self._connection.ask(path, method=method, body=body)
        except (*HUNG_UP, TimeoutError):
            await self.close()
            self._ledger.counts["lost"] += 1
            return None
        if answer.status == 503:
            self._ledger.counts["refused"] += 1
            return None
        assert answer.status < 500, answer.body
        return answer

    async def close(self) -> None:
        """Closes the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def read(self, path: str) -> None:
        """Reads a row, and has the answer checked."""
        expected = self._ledger.expect(path)
        answer = await self.call("GET", path)
        if answer is not None:
            version = answer.json()["version"] if answer.status == 200 else None
            self._ledger.read(path, expected, version, answer.headers["cache-status"])

    async def change(self, path: str, name: str) -> None:
        """Changes a row, and records the answer."""
        answer = await self.call("PATCH", path, {"name": name})
        if answer is not None and answer.status == 200:
            self._ledger.wrote(path, answer.json()["version"])
            self._ledger.counts["written"] += 1

    async def create(self, path: str, name: str) -> None:
        """Creates a product, which may already exist."""
        answer = await self.call("POST", "/products", {"sku": path.rpartition("/")[2], "name": name, "price": "1"})
        if answer is not None and answer.status == 201:
            self._ledger.wrote(path, answer.json()["version"])
            self._ledger.counts["written"] += 1

    async def remove(self, path: str) -> None:
        """Removes a product, which may not exist."""
        self._ledger.removing(path)
        answer = await self.call("DELETE", path)
        if answer is None:
            self._ledger.rows[path].doubtful = True
        elif answer.status == 204:
            self._ledger.removed(path)
            self._ledger.counts["written"] += 1


@pytest.mark.parametrize(("topology", "seed"), seeded(SEEDS, SAMPLE), indirect=["topology"], scope="package")
async def test_no_read_is_older_than_a_write_answered_before_it_whatever_fails(
    stores: Stores,
    redis_wire: RedisWire,
    postgres_wire: PostgresWire,
    service: Service,
    capsys: pytest.CaptureFixture[str],
    seed: int,
) -> None:
    randomness, ledger = random.Random(seed), Ledger()
    users, in_sql = await _users(stores, seed)
    products = [f"/products/P{seed}-{number}" for number in range(3)]
    # A row that is written all the time hides the old values that a Redis brings back when it forgets its last second.
    quiet = [f"/products/Q{seed}-{number}" for number in range(5)]
    nemesis = Nemesis(stores, redis_wire, postgres_wire, service, random.Random(randomness.random()))
    over = asyncio.Event()

    @asynccontextmanager
    async def client() -> AsyncIterator[tuple[Client, random.Random]]:
        own = random.Random(randomness.random())
        one = Client(service, ledger, own)
        try:
            yield one, own
        finally:
            await one.close()

    async def read() -> None:
        async with client() as (one, own):
            while not over.is_set():
                await one.read(own.choice([*users, *in_sql, *products, *quiet]))

    async def change_users() -> None:
        async with client() as (one, own):
            while not over.is_set():
                path = own.choice(users)
                await one.change(path, f"{own.random()}")
                await one.read(path)

    async def change_product(path: str) -> None:
        async with client() as (one, own):
            while not over.is_set():
                await own.choice((one.change, one.change, one.create, lambda path, _name: one.remove(path)))(
                    path, f"{own.random()}"
                )
                await one.read(path)

    async def change_quiet() -> None:
        async with client() as (one, own):
            for path in quiet:
                await one.create(path, "new")
            while not over.is_set():
                await one.change(own.choice(quiet), f"{own.random()}")
                await asyncio.sleep(own.uniform(0.05, 0.3))

    async def change_in_sql() -> None:
        while not over.is_set():
            await asyncio.sleep(0.1)
            path = in_sql[ledger.counts["in SQL"] % len(in_sql)]
            ledger.counts["in SQL"] += 1
            try:
                sql = await asyncpg.connect(stores.endpoints.database_url)
                version = await sql.fetchval(
                    "UPDATE users SET name = gen_random_uuid()::text WHERE id = $1 RETURNING version",
                    int(path.rpartition("/")[2]),
                )
                await sql.close()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                continue  # Postgres is away.
            ledger.changed_in_sql(path, version)

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(READERS):
            group.create_task(read())
        for _ in range(2):
            group.create_task(change_users())
        for path in products:
            group.create_task(change_product(path))
        group.create_task(change_quiet())
        group.create_task(change_in_sql())
        await nemesis.strike()

        async def enough() -> bool:
            return ledger.counts["written"] >= ENOUGH / 10 and ledger.counts["hit"] >= ENOUGH

        await eventually(enough)
        over.set()
    with capsys.disabled():
        print(_report(seed, time.monotonic() - began, ledger, nemesis.strikes), end="")
    assert ledger.stale == []


def _report(seed: int, seconds: float, ledger: Ledger, strikes: Sequence[Strike]) -> str:
    behind = max((late.behind for late in ledger.late), default=0.0)
    # Of changes committed before a fault was healed: for how long after the heal were they still not seen?
    after = max(
        (
            late.start - strike.end
            for late in ledger.late
            for strike in strikes
            if late.start - late.behind <= strike.end < late.start
        ),
        default=0.0,
    )
    faults = ", ".join(sorted(strike.fault for strike in strikes))
    counts = ", ".join(f"{number} {what}" for what, number in sorted(ledger.counts.items()))
    return (
        f"\nSeed {seed}: {faults}; {counts}; {seconds:.1f} s. The last read without a change in SQL began"
        f" {behind:.2f} s after it, and {after:.2f} s after a fault was mended."
    )


async def _users(stores: Stores, seed: int) -> tuple[list[str], list[str]]:
    sql = await asyncpg.connect(stores.endpoints.database_url)
    paths = [
        f"/users/{await sql.fetchval('INSERT INTO users (name, email) VALUES ($1, $1) RETURNING id', f'{seed}-{one}')}"
        for one in range(5)
    ]
    await sql.close()
    return paths[:3], paths[3:]
