"""Injects one fault after another, determined by a seed, and heals each."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]

from tests.faults.lost import Lost
from tests.faults.postgres_wire import PostgresWire
from tests.faults.redis_wire import RedisWire
from tests.faults.stores import Stores
from tests.faults.wire import Wire
from tests.process_tree import ProcessTree
from tests.service import Service

AT_MOST = 0.3
"""Longest wait, in seconds, for the loss of one answer."""

Fault = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault, and when it happened."""

    fault: str
    start: float
    end: float


class Nemesis:
    """Injects faults into the stores and, at the same time, into the workers."""

    def __init__(
        self, stores: Stores, redis: RedisWire, postgres: PostgresWire, service: Service, randomness: random.Random
    ) -> None:
        self._service, self._randomness = service, randomness
        self._stores: Mapping[str, Fault] = {
            "Redis cut": lambda: stores.cut_redis(randomness, randomness.randint(5, 20)),
            "Redis silent": lambda: self._for_a_while(redis, redis.silence),
            "Redis refuses": lambda: self._for_a_while(redis, redis.refuse),
            "Redis late": lambda: self._for_a_while(redis, lambda: redis.delay(randomness.uniform(0.005, 0.1))),
            "revocation unanswered": lambda: self._a_few_times(lambda: redis.drop_reply("^REVOKE ")),
            "Redis flushed": lambda: stores.flush_redis(randomness.randint(3, 20)),
            "Redis killed": lambda: stores.kill_redis(randomness.uniform(0.0, 0.4)),
            "Redis rewound": lambda: stores.rewind_redis(randomness.uniform(0.05, 1.0)),
            "Postgres cut": lambda: stores.cut_postgres(randomness.randint(5, 20)),
            "Postgres silent": lambda: self._for_a_while(postgres, postgres.silence),
            "Postgres late": lambda: self._for_a_while(
                postgres, lambda: postgres.delay(randomness.uniform(0.005, 0.1))
            ),
            "COMMIT unanswered": lambda: self._a_few_times(lambda: postgres.cut_after("^COMMIT")),
            "Postgres crashed": stores.crash_postgres,
        }
        self._workers: Mapping[str, Fault] = {"worker paused": self._pause_worker, "worker killed": self._kill_worker}
        self.strikes: list[Strike] = []

    async def strike(self) -> None:
        """Injects four faults into the stores. Meanwhile one worker is paused, and sometimes one is killed."""
        stores = self._randomness.sample(list(self._stores), 4)
        workers = self._randomness.choice([["worker paused"], ["worker paused"], ["worker paused", "worker killed"]])
        async with asyncio.TaskGroup() as group:
            group.create_task(self._one_by_one({name: self._stores[name] for name in stores}))
            group.create_task(self._one_by_one({name: self._workers[name] for name in workers}))

    async def _one_by_one(self, faults: Mapping[str, Fault]) -> None:
        for name, fault in faults.items():
            await asyncio.sleep(self._randomness.uniform(0.05, 0.3))
            start = time.monotonic()
            await fault()
            self.strikes.append(Strike(name, start, time.monotonic()))

    async def _for_a_while(self, wire: Wire, fault: Callable[[], None]) -> None:
        fault()
        try:
            await asyncio.sleep(self._randomness.uniform(0.2, 0.8))
        finally:
            wire.heal()

    async def _a_few_times(self, lose: Callable[[], Lost]) -> None:
        for _ in range(self._randomness.randint(2, 6)):
            lost = lose()
            # If nobody calls, because something else is broken, the next call is hit.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(lost.dropped.wait(), AT_MOST)

    async def _pause_worker(self) -> None:
        worker = self._worker()
        worker.suspend()
        try:
            await asyncio.sleep(self._randomness.uniform(0.5, 2.0))
        finally:
            worker.resume()

    async def _kill_worker(self) -> None:
        """Kills a worker. The supervisor starts another one."""
        self._worker().kill()

    def _worker(self) -> psutil.Process:
        return self._randomness.choice(ProcessTree.of(self._service.process.pid).workers())
