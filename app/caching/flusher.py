"""The other half of write-behind: carries what was taken on from the stream to the database, each batch once.

    gather   XREADGROUP (now and then XAUTOCLAIM, from consumers that died), until there are enough views, or it is time
    flush    one transaction: the ledger, and the counters of the batches that are new to it
    forget   acknowledge and delete the entries, and begin a new epoch

Any number of flushers share the work. One that dies leaves its entries to the others; one that dies after COMMIT leaves
entries that the ledger knows. What could not be flushed is held, and tried again.

What can go wrong: Redis or the database away: the flusher waits, and goes on by itself.
"""

import json
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from app.caching.breaker import Breaker
from app.caching.repeating import Repeating
from app.caching.scripts import run, script
from app.caching.shards import COUNT, GROUP, Shard, shards, ulid_time

BLOCK = timedelta(milliseconds=200)
"""How long one read waits for entries: the flusher sees within this time that it shall stop."""
ABANDONED = timedelta(seconds=10)
"""An entry that was not acknowledged for this long is taken over: much longer than a flush may take."""
MOST_AT_ONCE = 200
MOST_ROWS = 10_000
"""What one transaction counts at most: far below what Postgres does within a statement's time."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one call has accepted: how many views of which pages."""

    id: str
    deltas: Mapping[str, int]


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
        return 0 if self.batch is None else sum(self.batch.deltas.values())


@dataclass(frozen=True, slots=True)
class Undecodable:
    """Bytes in the stream that are no batch, and where they stood."""

    place: str
    raw: bytes


Flush = Callable[[Sequence[Batch], Sequence[Undecodable]], Awaitable[int]]
"""Counts batches in the database, each at most once, and keeps what is none as dead letters. Answers how many rows it
wrote. Raises TargetUnavailable when the database is away."""

Flushed = Callable[[int, int, int], None]
"""Told how many views were flushed in how many rows, and how many rounds failed."""


class Flusher:
    """One task that carries. `redis` is its own: a read that waits holds a connection. It flushes when `views` have
    come together, or when the first of them is `interval` old."""

    def __init__(
        self,
        redis: Redis,
        name: str,
        flush: Flush,
        *,
        views: int,
        interval: timedelta,
        breaker: Breaker,
        flushed: Flushed,
    ) -> None:
        self._redis, self._flush, self._flushed = redis, flush, flushed
        self._views, self._interval, self._breaker = views, interval, breaker
        self._shards = {shard.stream: shard for shard in shards(name)}
        self._consumer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._acknowledge, self._begin = script(redis, "acknowledge"), script(redis, "begin")
        self._held: list[Entry] = []
        self._counted = 0
        self._claimed = 0.0
        self._repeating = Repeating("flusher", self._repeat, lambda: flushed(0, 0, 1))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Carries while the block lasts. At the end the round under way is finished; what is left waits in Redis."""
        async with self._repeating.running():
            yield

    @property
    def alive(self) -> bool:
        """Whether it carries."""
        return self._repeating.alive

    async def _repeat(self) -> timedelta:
        await self.round()
        return timedelta(0)

    async def round(self) -> int:
        """Gathers, flushes and forgets once, and answers how many entries it had."""
        if not self._held:
            await self._gather()
        count = len(self._held)
        while self._held:
            # What fails is held, and tried again: nothing is read meanwhile.
            some = _some(self._held)
            if self._counted < len(some):
                await self._count(some)
                self._counted = len(some)
            # If this fails, the entries are counted, and only have to be forgotten.
            await self._forget(some[: self._counted])
            del self._held[: self._counted]
            self._counted = 0
        return count

    async def _count(self, entries: Sequence[Entry]) -> None:
        # One batch may stand in two entries, when Redis was restored from a copy: it counts once.
        batches = {entry.batch.id: entry.batch for entry in entries if entry.batch is not None}
        broken = [Undecodable(f"{entry.shard.stream} {entry.id}", entry.raw) for entry in entries if not entry.batch]
        rows = await self._flush(list(batches.values()), broken)
        self._flushed(sum(sum(batch.deltas.values()) for batch in batches.values()), rows, 0)

    async def _gather(self) -> None:
        await self._take_over()
        deadline = None if not self._held else time.monotonic() + self._interval.total_seconds()
        while not self._repeating.stopping and not self._enough():
            left = BLOCK.total_seconds() if deadline is None else deadline - time.monotonic()
            if left <= 0:
                break
            # What was read is held at once: if the next read fails, it must not wait to be taken over.
            self._held += await self._read(min(left, BLOCK.total_seconds()))
            if deadline is None:
                if not self._held:
                    break
                deadline = time.monotonic() + self._interval.total_seconds()

    def _enough(self) -> bool:
        return sum(entry.views for entry in self._held) >= self._views or len(self._held) >= MOST_AT_ONCE

    async def _read(self, block: float) -> list[Entry]:
        try:
            answer = await self._redis.xreadgroup(
                GROUP,
                self._consumer,
                dict.fromkeys(self._shards, ">"),
                count=MOST_AT_ONCE // COUNT,
                block=max(1, int(block * 1000)),
            )
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            await self._create_groups()
            return []
        # redis-py's type is a union over protocols and decoding; ours is RESP2, undecoded.
        streams = cast("list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]", answer)
        return [self._entry(stream.decode(), *entry) for stream, entries in streams for entry in entries]

    async def _create_groups(self) -> None:
        for shard in self._shards.values():
            await self._begin(keys=[shard.stream, shard.epoch], args=[GROUP, secrets.token_hex(8)])

    async def _take_over(self) -> None:
        """Holds what consumers have left unacknowledged for long. It is looked for now and then."""
        if time.monotonic() - self._claimed < ABANDONED.total_seconds() / 2:
            return
        for stream in self._shards:
            try:
                answer = await self._redis.xautoclaim(
                    stream,
                    GROUP,
                    self._consumer,
                    min_idle_time=int(ABANDONED.total_seconds() * 1000),
                    count=MOST_AT_ONCE // COUNT,
                )
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                await self._create_groups()
                continue
            # Redis 6.2 answers entries that are gone from the stream as (None, None).
            self._held += [self._entry(stream, *entry) for entry in answer[1] if entry[0] is not None]
        if not self._held:
            self._claimed = time.monotonic()

    def _entry(self, stream: str, entry_id: bytes, fields: Mapping[bytes, bytes]) -> Entry:
        raw = fields.get(b"deltas", b"")
        return Entry(self._shards[stream], entry_id.decode(), _decoded(fields), raw)

    async def _forget(self, entries: Sequence[Entry]) -> None:
        for shard in self._shards.values():
            of_shard = [entry for entry in entries if entry.shard == shard]
            if of_shard:
                words = (word for entry in of_shard for word in (entry.id, entry.views))
                args = [GROUP, secrets.token_hex(8), *words]
                await run(self._acknowledge, partial(_question, shard, of_shard, args), self._breaker)


def _question(
    shard: Shard, entries: Sequence[Entry], args: Sequence[str | int], run: str | None
) -> tuple[Sequence[str], Sequence[str | int]]:
    pages = dict.fromkeys(page for entry in entries if entry.batch for page in entry.batch.deltas)
    return [shard.stream, shard.epoch, shard.backlog, *(shard.total(page, run) for page in pages)], args


def _some(entries: Sequence[Entry]) -> Sequence[Entry]:
    """As many of the first entries as one transaction takes, and one at least."""
    rows = 0
    for place, entry in enumerate(entries):
        rows += len(entry.batch.deltas) if entry.batch else 1
        if rows > MOST_ROWS and place:
            return entries[:place]
    return entries[:]


def _decoded(fields: Mapping[bytes, bytes]) -> Batch | None:
    try:
        deltas = json.loads(fields[b"deltas"])
        batch = fields[b"batch"].decode()
        ulid_time(batch)
        return Batch(batch, deltas) if all(type(delta) is int and delta > 0 for delta in deltas.values()) else None
    except (KeyError, ValueError, AttributeError, RecursionError):
        return None
