"""Plays operations against a strategy, and measures each.

    closed loop    `clients` clients, each sends the next operation when the last is answered: what the strategy can do
    open loop      operations come at a fixed rate, answered or not: how long its users wait

In an open loop, the time of an operation counts from when it was due. A closed loop omits the operations that would
have come while it waited, and so shows a stall of a second as one slow operation: that is coordinated omission. (Gil
Tene, "How NOT to Measure Latency", 2013; Schroeder, Wierman, Harchol-Balter, "Open Versus Closed", NSDI 2006.)

What can go wrong: an operation that fails is counted, with its error, and has no latency.
"""

import asyncio
import time
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from redis.asyncio import Redis

from app.caching import WriteBehind
from app.caching.write_behind.shard import number, shards
from app.lab.comparison.bench import Bench
from app.lab.comparison.costs import WRITING
from app.lab.comparison.entrant import Entrant
from app.lab.comparison.lru import Lru
from app.lab.comparison.oracle import Oracle
from app.lab.traces.operation import Kind, Operation

# What a Redis with `volatile-lru` would do: a key without a TTL stays, such as a counter that is nowhere else.
EVICT = "if redis.call('PTTL', KEYS[1]) > 0 then return redis.call('UNLINK', KEYS[1]) end return 0"
MOST_UNDER_WAY = 1_000
"""The most operations of an open loop in flight; those after them wait to be sent, and their wait counts."""


@dataclass(slots=True)
class Tally:
    """How long the operations took, in seconds, and what failed."""

    reads: "array[float]" = field(default_factory=lambda: array("d"))
    writes: "array[float]" = field(default_factory=lambda: array("d"))
    acknowledged: int = 0
    errors: int = 0
    first_error: str = ""


class Player:
    """Plays against one entrant. Each write has a different value."""

    def __init__(self, entrant: Entrant, bench: Bench, *, cache_size: int | None = None) -> None:
        self.entrant, self.oracle, self.tally = (
            entrant,
            Oracle(entrant.strategy.holds, later=entrant.contestant.later),
            Tally(),
        )
        self._redis, self._identity = bench.redis, bench.identity
        self._lru = None if cache_size is None else Lru(cache_size)
        self._value = 0

    async def closed(self, operations: Sequence[Operation], clients: int, stop: asyncio.Event) -> int:
        """Plays the operations with `clients` clients, until `stop`, and returns how many were played."""
        waiting = iter(operations)
        played = 0

        async def client() -> None:
            nonlocal played
            for operation in waiting:
                if stop.is_set():
                    return
                played += 1
                await self._play(operation, time.monotonic())

        await asyncio.gather(*(client() for _each in range(clients)))
        return played

    async def open(self, operations: Iterable[Operation], rate: float, stop: asyncio.Event) -> int:
        """Plays the operations at `rate` per second, until `stop`, and returns how many were played."""
        began = time.monotonic()
        turns = asyncio.Semaphore(MOST_UNDER_WAY)

        async def due(operation: Operation, at: float) -> None:
            async with turns:
                await self._play(operation, at)

        tasks = []
        for place, operation in enumerate(operations):
            at = began + place / rate
            if (early := at - time.monotonic()) > 0:
                await asyncio.sleep(early)
            if stop.is_set():
                break
            tasks.append(asyncio.create_task(due(operation, at)))
        await asyncio.gather(*tasks)
        return len(tasks)

    async def _play(self, operation: Operation, due: float) -> None:
        try:
            if operation.kind is Kind.READ:
                await self._read(operation.key, due)
            else:
                await self._write(operation.key, due)
        except Exception as error:  # noqa: BLE001  # Any error of a strategy: its user has no answer.
            self.tally.errors += 1
            self.tally.first_error = self.tally.first_error or f"{type(error).__name__}: {error}"

    async def _read(self, key: str, due: float) -> None:
        began = time.monotonic()
        value = await self.entrant.strategy.read(key)
        ended = time.monotonic()
        self.oracle.read(key, value, began, ended)
        self.tally.reads.append(ended - due)
        if self._lru is not None:
            await self._used(self._lru, key)

    async def _write(self, key: str, due: float) -> None:
        self._value += 1
        write = self.oracle.begin(key, self._value, time.monotonic())
        token = WRITING.set(True)
        try:
            await self.entrant.strategy.write(key, self._value)
        finally:
            WRITING.reset(token)
        write.acknowledged = time.monotonic()
        self.tally.writes.append(write.acknowledged - due)
        self.tally.acknowledged += 1
        if self._lru is not None:
            # Some strategies write to the cache, some delete the entry, and some leave it as it is.
            if await self._redis.exists(self._cached(key)):
                await self._used(self._lru, key)
            else:
                self._lru.discard(key)

    async def _used(self, lru: Lru, key: str) -> None:
        out = lru.touch(key)
        if out is not None:
            await _evict(self._redis, self._cached(out))

    def _cached(self, key: str) -> str:
        name = self.entrant.name
        if self.entrant.contestant.make is not None:
            return f"{name}:{key}"
        if self.entrant.contestant.name == WriteBehind.NAME:
            page = self.entrant.prefix + key
            return shards(name)[number(page)].total(page, self._identity.life)
        return f"{name}:{{{key}}}"


async def _evict(redis: Redis, name: str) -> None:
    await redis.eval(EVICT, 1, name)
