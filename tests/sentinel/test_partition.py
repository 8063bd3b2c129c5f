"""A primary is cut off from its Sentinels and its replica, lives on, and answers some instance: nothing stale is read.

    the Sentinels lose X, and promote Y       X is alive
    A reaches X and Postgres                  B follows the Sentinels to Y, and reaches Postgres

Postgres says which of the two is trusted, and an instance that finds the other one reads from Postgres.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from redis.exceptions import RedisError

from app.caching import CacheError, Outcome, Reading
from app.coherence.epochs import Look
from app.coherence.succession import Succession
from app.errors import DatabaseUnavailable
from app.inventory.models import Adjustment
from app.metrics import Metrics
from app.settings import Settings
from app.wiring import Resources, open_resources
from tests.eventually import eventually
from tests.faults.redis_process import RedisProcess
from tests.faults.watched_redis import WatchedRedis
from tests.histories.staleness.ledger import Ledger

pytestmark = pytest.mark.not_on("redis", because="each test has a primary, a replica and three Sentinels")

SEEDS = [pytest.param(seed, marks=[pytest.mark.prove] if seed else []) for seed in range(20)]
KEYS = 4
READS = 300
"""How many reads each instance answers before the partition, and after the switch."""


class Crowd:
    """Clients that read and change users, products and stock through two instances."""

    def __init__(self, instances: dict[str, Resources], users: list[int], seed: int) -> None:
        self.ledger = Ledger()
        self.read: Counter[str] = Counter()
        self.hit: Counter[str] = Counter()
        self._instances, self._users, self._random = instances, users, random.Random(seed)
        self._over = asyncio.Event()

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        """Runs the clients while the block lasts."""
        async with asyncio.TaskGroup() as group:
            for name in self._instances:
                for _ in range(3):
                    group.create_task(self._reads(name))
                group.create_task(self._writes(name))
            try:
                yield
            finally:
                self._over.set()

    async def reads(self, number: int) -> None:
        """Returns when each instance has answered `number` more reads."""
        before = self.read.copy()

        async def have_read() -> bool:
            return all(self.read[name] >= before[name] + number for name in self._instances)

        await eventually(have_read)

    async def hits(self, name: str) -> None:
        """Returns when this instance has answered one more hit."""
        before = self.hit[name]

        async def has_hit() -> bool:
            return self.hit[name] > before

        await eventually(has_hit)

    async def _reads(self, name: str) -> None:
        while not self._over.is_set():
            await asyncio.sleep(0.005)
            resource, key = self._row()
            expected = self.ledger.expect(f"{resource} {key}")
            try:
                reading = await self._get(name, resource, key)
            except (CacheError, DatabaseUnavailable):
                continue
            if not reading.verified:
                continue
            self.read[name] += 1
            self.hit[name] += reading.outcome is Outcome.HIT
            self.ledger.read(f"{resource} {key}", expected, reading.version, f"; {reading.outcome} by {name}")

    async def _writes(self, name: str) -> None:
        number = 0
        while not self._over.is_set():
            await asyncio.sleep(self._random.uniform(0.01, 0.1))
            resource, key = self._row()
            number += 1
            try:
                version = await self._change(name, resource, key, f"{name} {number}")
            except (CacheError, DatabaseUnavailable):
                continue
            self.ledger.wrote(f"{resource} {key}", version)

    def _row(self) -> tuple[str, int]:
        return self._random.choice(("users", "products", "inventory")), self._random.randrange(KEYS)

    async def _get(self, name: str, resource: str, key: int) -> Reading[Any]:
        instance = self._instances[name]
        if resource == "users":
            return await instance.users.get(self._users[key])
        if resource == "products":
            return await instance.products.get(f"P{key}")
        return await instance.inventory.get(f"S{key}")

    async def _change(self, name: str, resource: str, key: int, text: str) -> int:
        instance = self._instances[name]
        if resource == "users":
            return (await instance.users.change(self._users[key], {"name": text}, None)).version
        if resource == "products":
            return (await instance.products.change(f"P{key}", {"name": text}, None)).version
        changed = await instance.inventory.put(f"S{key}", Adjustment(delta=1))
        assert changed is not None
        return changed.version


@asynccontextmanager
async def instance(redis_url: str, database_url: str) -> AsyncIterator[Resources]:
    """Runs an instance in this process, with the patience that a busy machine needs."""
    settings = Settings(
        _env_file=None,
        redis_url=redis_url,
        database_url=database_url,
        redis_timeout=timedelta(seconds=2),
        database_timeout=timedelta(seconds=5),
    )
    async with open_resources(settings, Metrics()) as resources:
        yield resources


@pytest.fixture
async def users(sql: asyncpg.Connection) -> list[int]:
    """The ids of some users, in a database that also has products and stock."""
    ids = []
    for key in range(KEYS):
        ids.append(
            await sql.fetchval("INSERT INTO users (name, email) VALUES ('-', $1) RETURNING id", f"{key}@example.com")
        )
        await sql.execute("INSERT INTO products (sku, name, price) VALUES ($1, '-', '1')", f"P{key}")
        await sql.execute("INSERT INTO stock (sku, quantity) VALUES ($1, 1)", f"S{key}")
    return ids


@pytest.mark.parametrize("seed", SEEDS)
async def test_an_instance_with_a_primary_that_was_cut_off_reads_nothing_stale_and_makes_others_read_nothing_stale(
    watched: WatchedRedis, database_url: str, users: list[int], seed: int
) -> None:
    """A's URL names X itself. Both instances reach both Redises: only the Sentinels tell B of the switch.

    A is trusted with X, and refutes B's claim: B reads from Postgres until A is gone, or follows the Sentinels. (On a
    busy machine, A may stall for longer than a claim waits: then A is the one that reads from Postgres.)
    """
    async with instance(watched.primary_url, database_url) as a, instance(watched.url, database_url) as b:
        crowd = Crowd({"A": a, "B": b}, users, seed)
        async with crowd.calling():
            await crowd.reads(READS)
            await crowd.hits("A")
            await crowd.hits("B")
            await watched.part_from_primary()
            await watched.switched()
            await eventually(lambda: leads_to(b, watched.replica))
            await crowd.reads(READS)
            assert not (a.cache.caches[0].trust.held and b.cache.caches[0].trust.held)
    assert crowd.ledger.stale == []


@pytest.mark.parametrize("seed", SEEDS)
async def test_an_instance_that_is_cut_off_with_the_old_primary_gives_way_to_those_that_follow_the_sentinels(
    watched: WatchedRedis, database_url: str, users: list[int], seed: int
) -> None:
    """A follows the Sentinels, too, and loses them together with X        B claims Y
    A finds the claim, and connects anew before it refutes: no Sentinel tells it where to. It gives way
    """
    async with instance(watched.client_url, database_url) as a, instance(watched.url, database_url) as b:
        crowd = Crowd({"A": a, "B": b}, users, seed)
        async with crowd.calling():
            await crowd.reads(READS)
            await crowd.hits("A")
            await crowd.hits("B")
            for sentinel in watched.sentinels:
                await sentinel.cut_off("client")
            await watched.part_from_primary()
            await watched.switched()
            await eventually(lambda: leads_to(b, watched.replica))

            async def gives_way() -> bool:
                return b.cache.caches[0].trust.held and a.cache.caches[0].trust.lost

            await eventually(gives_way)
            await crowd.reads(READS)
            await crowd.hits("B")
            for sentinel in watched.sentinels:
                await sentinel.let_in("client")
            await eventually(lambda: leads_to(a, watched.replica))
            await crowd.hits("A")
            await crowd.reads(READS)
    assert crowd.ledger.stale == []


async def test_stale_reads_are_found_where_postgres_does_not_say_which_redis_is_trusted(
    watched: WatchedRedis, database_url: str, users: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A invalidates on X, and its relay marks the change as told       B, which is on Y, hits the old value"""

    async def unchallenged(_self: object, _epoch: object, look: Look) -> Look:
        return look

    monkeypatch.setattr(Succession, "_mismatch", lambda *_: None)
    monkeypatch.setattr(Succession, "_unchallenged", unchallenged)
    async with instance(watched.primary_url, database_url) as a, instance(watched.url, database_url) as b:
        crowd = Crowd({"A": a, "B": b}, users, 0)
        async with crowd.calling():
            await crowd.reads(READS)
            assert crowd.ledger.stale == []
            await watched.part_from_primary()
            await watched.switched()
            await eventually(lambda: leads_to(b, watched.replica))

            async def is_stale() -> bool:
                return bool(crowd.ledger.stale)

            await eventually(is_stale)


async def leads_to(instance: Resources, server: RedisProcess) -> bool:
    """Whether the instance reaches this Redis."""
    try:
        return bool((await instance.cache.caches[0].redis.info("server"))["tcp_port"] == server.port)
    except (RedisError, OSError):
        return False
