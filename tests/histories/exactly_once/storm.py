"""Injects one fault after another, determined by a seed, while views are counted.

There are two kinds of storms. In one, processes of the application die, and Redis keeps what it has confirmed. In the
other, Redis loses what it has confirmed, and no process of the application dies. Both at once may lose views, because
only Redis and the process that accepted them know of them.
"""

import asyncio
import contextlib
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import cast

import psutil  # type: ignore[import-untyped]
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from app.caching.write_behind.shard import GROUP
from tests.eventually import PATIENCE, eventually
from tests.faults.lost import Lost
from tests.faults.postgres_wire import PostgresWire
from tests.faults.redis_wire import RedisWire
from tests.faults.stores import Stores
from tests.faults.wire import Wire
from tests.histories.exactly_once.application import Application
from tests.histories.exactly_once.books import Books
from tests.histories.exactly_once.ends import psql

AT_MOST = 0.5
"""Longest wait, in seconds, for the loss of one answer."""
BETWEEN = 60
"""The most calls that are answered between two faults."""
STRIKES = 4

Fault = Callable[[], Awaitable[None]]


class Acknowledgement:
    """Matches the first acknowledgement that passes, and no other."""

    text = ""

    def is_this(self, text: str) -> bool:
        """Whether `text` is that acknowledgement."""
        if not self.text and text.startswith("ACKNOWLEDGE "):
            self.text = text
        return text == self.text


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault, and how many calls were made while it lasted."""

    fault: str
    calls: int


class Storm:
    """Injects faults into the stores, the wires to them, and the application. `loses` selects the kind of storm."""

    def __init__(
        self,
        stores: Stores,
        redis: RedisWire,
        postgres: PostgresWire,
        application: Application,
        books: Books,
        randomness: random.Random,
        *,
        loses: bool,
    ) -> None:
        self._stores, self._redis, self._application = stores, redis, application
        self._books, self._random, self._loses = books, randomness, loses
        self._ends: Mapping[str, Fault] = {
            "a worker killed": self._kill_worker,
            "all workers killed": self._kill_application,
            "a flusher killed before it acknowledged": self._kill_flusher,
        }
        self._losses: Mapping[str, Fault] = {
            "Redis killed": lambda: stores.kill_redis(randomness.uniform(0.0, 0.3)),
            "Redis emptied": stores.empty_redis,
            "Redis rewound": lambda: stores.rewind_redis(randomness.uniform(0.2, 1.0)),
            "Redis without its last bytes": lambda: stores.shorten_redis(randomness.randint(1, 20_000)),
        }
        self._others: Mapping[str, Fault] = {
            "Postgres crashed": stores.crash_postgres,
            "Postgres cut": lambda: stores.cut_postgres(randomness.randint(5, 20)),
            "Postgres late": lambda: self._late(postgres),
            "COMMIT unanswered": lambda: self._a_few_times(lambda: postgres.cut_after("^COMMIT")),
            "Redis cut": lambda: stores.cut_redis(randomness, randomness.randint(5, 20)),
            "Redis late": lambda: self._late(redis),
            "views unanswered": lambda: self._a_few_times(lambda: redis.cut_after("^ACCEPT ")),
            "acknowledgements unanswered": lambda: self._a_few_times(lambda: redis.drop_reply("^ACKNOWLEDGE ")),
        }
        self.strikes: list[Strike] = []

    async def strike(self) -> None:
        """Injects four faults, at least one of its kind, each after some answered calls since the previous one."""
        kind = self._losses if self._loses else {**self._ends, "Redis killed": self._losses["Redis killed"]}
        first = self._random.choice([*(self._losses if self._loses else self._ends)])
        rest = self._random.sample([name for name in (*kind, *self._others) if name != first], STRIKES - 1)
        names = [first, *rest]
        self._random.shuffle(names)
        await fsync(self._stores.endpoints.redis_url, "everysec" if self._loses else "always")
        for name in names:
            await self._answers(self._random.randint(10, BETWEEN))
            before = self._calls()
            await self._strike_with(name, {**kind, **self._others}[name])
            self.strikes.append(Strike(name, self._calls() - before))
        await self._answers(BETWEEN)

    async def _strike_with(self, name: str, fault: Fault) -> None:
        if self._loses and name in self._losses:
            with self._books.loss():
                await fault()
            return
        await fault()
        if name in self._losses:
            await fsync(self._stores.endpoints.redis_url, "always")

    def _calls(self) -> int:
        return self._books.counts["calls"]

    async def _answers(self, number: int) -> None:
        enough = self._books.counts["answered"] + number

        async def are_enough() -> bool:
            return self._books.counts["answered"] >= enough

        await eventually(are_enough)

    async def _late(self, wire: Wire) -> None:
        wire.delay(self._random.uniform(0.005, 0.3))
        try:
            await asyncio.sleep(self._random.uniform(0.2, 0.8))
        finally:
            wire.heal()

    async def _a_few_times(self, lose: Callable[[], Lost]) -> None:
        for _ in range(self._random.randint(2, 8)):
            lost = lose()
            # If nobody calls, because something else is broken, the next call is hit.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(lost.dropped.wait(), AT_MOST)

    async def _kill_worker(self) -> None:
        await self._application.killed(self._random.choice(self._application.processes()))

    async def _kill_application(self) -> None:
        await self._application.kill()
        await self._application.start()

    async def _kill_flusher(self) -> None:
        """Kills a flusher before Redis learns what the database has, neither while the process lives nor later."""
        killed = False
        while not killed:
            killed = await self._kill_flusher_of(Acknowledgement())

    async def _kill_flusher_of(self, acknowledgement: Acknowledgement) -> bool:
        async with self._redis.holding(acknowledgement.is_this) as held:
            await asyncio.wait_for(held.arrived.wait(), PATIENCE)
            worker = await self._flusher(acknowledgement.text)
            if worker is not None:
                await self._application.killed(worker)
                self._redis.cut()
        return worker is not None

    async def _flusher(self, acknowledgement: str) -> psutil.Process | None:
        """Returns the process whose commit this acknowledgement confirms, identified by its consumer's name. None when
        another process has taken the entry over, and acknowledged it, before we could look it up."""
        words = acknowledgement.split(" ")
        stream = words[2]
        (entry,) = [word for word in words if re.fullmatch(r"\d{13}-\d+", word)][:1]
        async with Redis.from_url(self._stores.endpoints.redis_url) as redis:
            # redis-py's types are unions over decoding; our answers are not decoded.
            found = cast("list[tuple[bytes, dict[bytes, bytes]]]", await redis.xrange(stream, entry, entry))
            pending = await redis.xpending_range(stream, GROUP, entry, entry, 1)
        if not found or not pending:
            return None
        batch, consumer = found[0][1][b"batch"].decode(), cast("bytes", pending[0]["consumer"]).decode()
        async with psql(self._stores.endpoints.database_url) as sql:
            assert await sql.fetchval("SELECT count(*) FROM applied WHERE batch = $1", batch) == 1
        return psutil.Process(int(consumer.rsplit("-", 2)[1]))


async def fsync(redis_url: str, policy: str) -> None:
    """Sets when Redis syncs its file. With `everysec`, `kill -9` alone may lose what Redis has confirmed: it does not
    write while the disk is busy with the previous write. With `always`, it loses nothing."""

    async def is_set() -> bool:
        try:
            return bool(await redis.config_set("appendfsync", policy))
        except ResponseError:
            return False  # It loads its file.

    async with Redis.from_url(redis_url) as redis:
        await eventually(is_set)
