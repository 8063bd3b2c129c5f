"""The other half of write-behind: carries what was taken on from the stream to the database, each batch once.

    gather   XREADGROUP (now and then XAUTOCLAIM, from consumers that died), until there are enough views, or it is time
    flush    one transaction: the ledger, and the counters of the batches that are new to it
    forget   acknowledge and delete the entries, and begin a new epoch

Any number of flushers share the work. One that dies leaves its entries to the others; one that dies after COMMIT leaves
entries that the ledger knows. What could not be flushed because the database is away is held, and tried again.

What the database refuses for its content (`Refused`) must not hold up the rest: half as many entries are tried, and
half of those, until one stands alone. That one is salvaged: in one transaction, what can be counted of it is counted,
and the rest is kept as dead letters.

What can go wrong: Redis or the database away: the flusher waits, and goes on by itself.
"""

import asyncio
import json
import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from app.caching.breaker import Breaker
from app.caching.errors import CacheUnavailable, Refused
from app.caching.observing import Flow, ObserveFlow
from app.caching.repeating import Repeating
from app.caching.scripts import run, script
from app.caching.shards import COUNT, GROUP, Shard, shards, ulid_time

logger = logging.getLogger(__name__)

BLOCK = timedelta(milliseconds=200)
"""How long one read waits for entries: the flusher sees within this time that it shall stop."""
PAUSE = timedelta(milliseconds=5)
"""How long it lets more come between two reads."""
ABANDONED = timedelta(seconds=10)
"""An entry that was not acknowledged for this long is taken over: much longer than a flush may take."""
RETIRED = timedelta(minutes=1)
"""A consumer that has not asked for this long, and holds nothing, has died."""
DRAIN = timedelta(seconds=3)
"""So long it goes on carrying when it was told to stop, while there is something to carry."""
MOST_AT_ONCE = 200
MOST_ROWS = 10_000
"""What one transaction counts at most: far below what Postgres does within a statement's time."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one call has accepted: how many views of which pages."""

    id: str
    deltas: Mapping[str, int]

    @property
    def views(self) -> int:
        """How many views it holds."""
        return sum(self.deltas.values())


@dataclass(frozen=True, slots=True)
class Entry:
    """A batch as it stands in the stream; `batch` is None where the bytes are none."""

    shard: Shard
    id: str
    batch: Batch | None
    raw: bytes

    @property
    def views(self) -> int:
        """How many views it holds."""
        return 0 if self.batch is None else self.batch.views


@dataclass(frozen=True, slots=True)
class Salvage:
    """An entry that the database has refused, alone, or that is no batch; `place` is where it stood."""

    place: str
    batch: Batch | None
    raw: bytes
    reason: str
    deliveries: int


Flush = Callable[[Sequence[Batch]], Awaitable[int]]
"""Counts batches in the database, each at most once. Answers how many rows it wrote. Raises TargetUnavailable when the
database is away, and Refused when it refuses something of them; then nothing was counted."""

FlushSalvage = Callable[[Salvage], Awaitable[tuple[int, int]]]
"""Counts what can be counted of one batch, and keeps the rest as dead letters, in one transaction, once. Answers how
many rows it wrote, and how many views became dead letters. Raises TargetUnavailable."""


class Flusher:
    """One task that carries. `redis` is its own: a read that waits holds a connection. It flushes when `views` have
    come together, or when the first of them is `interval` old."""

    def __init__(
        self,
        redis: Redis,
        name: str,
        flush: Flush,
        salvage: FlushSalvage,
        *,
        views: int,
        interval: timedelta,
        breaker: Breaker,
        observe: ObserveFlow,
    ) -> None:
        self._redis, self._flush, self._salvage, self._observe = redis, flush, salvage, observe
        self._views, self._interval, self._breaker = views, interval, breaker
        self._shards = {shard.stream: shard for shard in shards(name)}
        self._consumer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._acknowledge, self._begin = script(redis, "acknowledge"), script(redis, "begin")
        self._retire_script = script(redis, "retire")
        self._held: list[Entry] = []
        self._counted = self._dead = 0
        self._most = MOST_AT_ONCE
        self._claimed = 0.0
        self._repeating = Repeating("flusher", self._repeat, lambda: observe(Flow.FAILURES, 1))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Carries while the block lasts, and then what is there yet, for as long as `DRAIN`. What is left waits in
        Redis, for others or for the next start."""
        async with self._repeating.running():
            yield
        deadline = time.monotonic() + DRAIN.total_seconds()
        try:
            while time.monotonic() < deadline and await self.round():
                continue
            await self._retire(own=True)
        except Exception as error:  # noqa: BLE001  # Whatever it is: nothing is lost, and the others have to stop, too.
            logger.warning("The flusher stops, and leaves what waits in Redis: %r", error)

    @property
    def alive(self) -> bool:
        """Whether it carries."""
        return self._repeating.alive

    @property
    def trouble(self) -> Exception | None:
        """Why it carries nothing, round after round; None, when it does."""
        return self._repeating.trouble

    async def _repeat(self) -> timedelta:
        await self.round()
        return timedelta(0)

    async def round(self) -> int:
        """Gathers, flushes and forgets once, and answers how many entries it had. What waits in a Redis that is not the
        one any more is carried, too; what waits in somebody else's is not ours. Raises CacheUnavailable."""
        if self._breaker.ours is False:
            self._held.clear()  # Whoever owns them takes them over.
            raise CacheUnavailable(f"Nothing is carried from this Redis: {self._breaker.refused}.")
        if not self._held:
            await self._gather()
        count = len(self._held)
        while self._held:
            # What fails is held, and tried again: nothing is read meanwhile.
            if not self._counted:
                if self._breaker.ours is None:
                    raise CacheUnavailable("Nobody knows yet whether what waits in this Redis is ours to carry.")
                life = self._breaker.life
                counted = await self._count(_some(self._held, self._most))
                # The flush is on its way to an old primary     another one is promoted, and the next epoch begins
                # the old one commits it: what Redis forgot now would be in no database that anybody believes
                if life != self._breaker.life:
                    continue
                self._counted = counted
            # If this fails, the entries are counted, and only have to be forgotten.
            await self._forget(self._held[: self._counted])
            del self._held[: self._counted]
            self._counted = self._dead = 0
        self._observe(Flow.FLUSHES, 1 if count else 0)
        return count

    async def _count(self, entries: Sequence[Entry]) -> int:
        """Counts some of the first entries, one at least, and answers how many."""
        # One batch may stand in two entries, when Redis was restored from a copy: it counts once.
        batches = {entry.batch.id: entry.batch for entry in entries if entry.batch is not None}
        if not batches:
            await self._rescue(entries[0], "It is no batch of views.")
            return 1
        try:
            rows = await self._flush(list(batches.values()))
        except Refused as error:
            if len(entries) == 1:
                await self._rescue(entries[0], str(error))
                return 1
            self._most = len(entries) // 2
            return await self._count(entries[: self._most])
        self._most = min(self._most * 2, MOST_AT_ONCE)
        self._observe(Flow.ROWS, rows)
        return len(entries)

    async def _rescue(self, entry: Entry, reason: str) -> None:
        place = f"{entry.shard.stream} {entry.id}"
        try:
            pending = cast(
                "list[dict[str, Any]]",
                await self._redis.xpending_range(entry.shard.stream, GROUP, min=entry.id, max=entry.id, count=1),
            )
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            pending = []  # Redis has lost it meanwhile.
        deliveries = int(pending[0]["times_delivered"]) if pending else 0
        rows, self._dead = await self._salvage(Salvage(place, entry.batch, entry.raw, reason, deliveries))
        self._observe(Flow.ROWS, rows)
        self._observe(Flow.DEAD, self._dead)
        logger.error("The entry %s was refused, and %d of its views are dead letters: %s", place, self._dead, reason)

    async def _gather(self) -> None:
        await self._take_over()
        deadline = None if not self._held else time.monotonic() + self._interval.total_seconds()
        while not self._enough():
            left = BLOCK.total_seconds() if deadline is None else deadline - time.monotonic()
            if left <= 0:
                break
            # What was read is held at once: if the next read fails, it must not wait to be taken over.
            came = await self._read(min(left, BLOCK.total_seconds()))
            self._held += came
            if self._repeating.stopping and not came:
                break
            if deadline is None:
                if not self._held:
                    break
                deadline = time.monotonic() + self._interval.total_seconds()
            if 0 < len(came) < MOST_AT_ONCE // COUNT:
                # A read ends with the first entry that comes. Under load each would bring one or two.
                await asyncio.sleep(min(PAUSE, self._interval).total_seconds())

    def _enough(self) -> bool:
        return sum(entry.views for entry in self._held) >= self._views or len(self._held) >= MOST_AT_ONCE

    async def _read(self, block: float) -> list[Entry]:
        try:
            answer = await self._redis.xreadgroup(
                GROUP,
                self._consumer,
                dict.fromkeys(self._shards, ">"),
                count=MOST_AT_ONCE // COUNT,
                # When it was told to stop, nobody waits for what may come.
                block=None if self._repeating.stopping else max(1, int(block * 1000)),
            )
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            await self._create_groups()
            return []
        return [self._entry(stream.decode(), *entry) for stream, entries in _streams(answer) for entry in entries]

    async def _create_groups(self) -> None:
        for shard in self._shards.values():
            await self._begin(keys=[shard.stream, shard.epoch], args=[GROUP, secrets.token_hex(8)])

    async def _take_over(self) -> None:
        """Holds what consumers have left unacknowledged for long. It is looked for now and then."""
        if time.monotonic() - self._claimed < ABANDONED.total_seconds() / 2:
            return
        for stream in self._shards:
            try:
                await self._claim(stream)
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                await self._create_groups()
            if self._enough():
                return  # There may be more.
        await self._retire(own=False)
        self._claimed = time.monotonic()

    async def _claim(self, stream: str) -> None:
        cursor: Any = "0-0"
        while not self._enough():
            # Redis 7 answers a third part: ids that are gone from the stream, and pending no more.
            cursor, entries, *deleted = await self._redis.xautoclaim(
                stream,
                GROUP,
                self._consumer,
                min_idle_time=int(ABANDONED.total_seconds() * 1000),
                start_id=cursor,
                count=MOST_AT_ONCE // COUNT,
            )
            there = [entry for entry in entries if entry[0] is not None]
            self._held += [self._entry(stream, *entry) for entry in there]
            self._gone(sum(map(len, deleted)))
            if len(there) < len(entries):  # Redis 6.2 answers (None, None) for them, and has made them ours.
                await self._acknowledge_gone(stream)
            if cursor in (b"0-0", "0-0"):
                return

    async def _acknowledge_gone(self, stream: str) -> None:
        last = b"0"
        while True:
            answer = await self._redis.xreadgroup(GROUP, self._consumer, {stream: last}, count=1000)
            ours = [entry for _stream, entries in _streams(answer) for entry in entries]
            if not ours:
                return
            last = ours[-1][0]
            if gone := [entry_id for entry_id, fields in ours if not fields]:
                await self._redis.xack(stream, GROUP, *gone)
                self._gone(len(gone))

    def _gone(self, count: int) -> None:
        if count:
            logger.warning("%d entries were removed from the stream before they were carried.", count)
            self._observe(Flow.GONE, count)

    async def _retire(self, *, own: bool) -> None:
        """Removes consumers that have died, or this one, if they hold nothing."""
        args = [GROUP, round(RETIRED / timedelta(milliseconds=1)), self._consumer if own else ""]
        for shard in self._shards.values():
            await self._retire_script(keys=[shard.stream], args=args)

    def _entry(self, stream: str, entry_id: bytes, fields: Mapping[bytes, bytes]) -> Entry:
        raw = fields.get(b"deltas", b"")
        return Entry(self._shards[stream], entry_id.decode(), _decoded(fields), raw)

    async def _forget(self, entries: Sequence[Entry]) -> None:
        for shard in self._shards.values():
            of_shard = [entry for entry in entries if entry.shard == shard]
            if of_shard:
                each = [
                    (entry.id, entry.batch.id if entry.batch else "", entry.views, len(entry.raw)) for entry in of_shard
                ]
                words = (word for words in each for word in words)
                args = [GROUP, secrets.token_hex(8), *words]
                question = partial(_question, shard, of_shard, args)
                views = int(await run(self._acknowledge, question, self._breaker, drains=True))
                # Each entry leaves the stream once, whoever carries it; one with dead letters is alone here.
                self._observe(Flow.FLUSHED, max(0, views - self._dead))


def _streams(answer: Any) -> list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]:
    # redis-py's type is a union over protocols and decoding; ours is RESP2, undecoded.
    return cast("list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]", answer)


def _question(
    shard: Shard, entries: Sequence[Entry], args: Sequence[str | int], life: str | None
) -> tuple[Sequence[str | bytes], Sequence[str | int]]:
    pages = dict.fromkeys(page for entry in entries if entry.batch for page in entry.batch.deltas)
    return [shard.stream, shard.epoch, shard.backlog, shard.bytes, *(_total(shard, page, life) for page in pages)], args


def _total(shard: Shard, page: str, life: str | None) -> bytes:
    # A page that is no text has become a dead letter, and has no total; its entry is forgotten all the same.
    return shard.total(page, life).encode(errors="surrogatepass")


def _some(entries: Sequence[Entry], most: int) -> Sequence[Entry]:
    """As many of the first entries as one transaction takes, and one at least. One that is no batch stands alone."""
    rows = 0
    for place, entry in enumerate(entries[:most]):
        rows += len(entry.batch.deltas) if entry.batch else MOST_ROWS + 1
        if place and (rows > MOST_ROWS or entries[0].batch is None):
            return entries[:place]
    return entries[:most]


def _decoded(fields: Mapping[bytes, bytes]) -> Batch | None:
    try:
        deltas = json.loads(fields[b"deltas"])
        batch = fields[b"batch"].decode()
        ulid_time(batch)
        return Batch(batch, deltas) if all(type(delta) is int and delta > 0 for delta in deltas.values()) else None
    except (KeyError, ValueError, AttributeError, RecursionError):
        return None
