"""How a flusher obtains entries: new ones, and those that were delivered to consumers that died.

    read     XREADGROUP, until there is enough or the interval is over
    claim    XAUTOCLAIM, now and then: entries that have been unacknowledged for a long time
    keep     XCLAIM: renews this consumer's hold on the entries that it has set aside. Entries that it holds while the
             database is down are not renewed: others may claim them, too, and the ledger counts each batch once

What can go wrong: Redis is down or was replaced: its error passes through. A group that is gone is created again.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import timedelta
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from ..observing import Flow, ObserveFlow
from .pending import Pending
from .scripts import script
from .shard import COUNT, GROUP, Shard
from .streams import Streams, is_no_stream

logger = logging.getLogger(__name__)

BLOCK = timedelta(milliseconds=200)
"""How long one read waits for entries. A flusher notices within this time that it must stop."""
PAUSE = timedelta(milliseconds=5)
"""Pause between two reads, in which more entries arrive."""
ABANDONED = timedelta(seconds=10)
"""Entries that have been unacknowledged for this long are claimed by others. Much longer than a flush may take."""
RETIRED = timedelta(minutes=1)
"""A consumer that has been idle for this long and holds nothing counts as dead."""
MOST_AT_ONCE = 200


class Gathering:
    """The `consumer` of the streams of `shards`. It stops gathering when it holds `amount`, or when the first entry is
    `interval` old. `stopping` says whether it must stop."""

    def __init__(
        self,
        redis: Redis,
        shards: Sequence[Shard],
        consumer: str,
        *,
        amount: int,
        interval: timedelta,
        stopping: Callable[[], bool],
        observe: ObserveFlow,
    ) -> None:
        self._redis, self._amount, self._interval = redis, amount, interval
        self._stopping, self._observe = stopping, observe
        self._streams, self.consumer = Streams(redis, shards), consumer
        self._begin, self._retire = script(redis, "begin"), script(redis, "retire")
        self._claimed = self._kept = 0.0

    @property
    def trouble(self) -> Exception | None:
        """Why not all streams are read."""
        return self._streams.trouble

    async def gather(self, held: list[Pending], aside: Collection[Pending] = ()) -> None:
        """Adds the entries to flush next to `held`, which is empty. `aside` has the entries that were set aside."""
        await self._keep(aside)
        await self._claim_all(held, {(one.shard, one.id) for one in aside})
        deadline = None if not held else time.monotonic() + self._interval.total_seconds()
        while not self._enough(held):
            left = BLOCK.total_seconds() if deadline is None else deadline - time.monotonic()
            if left <= 0:
                break
            # Hold what was read at once: if the next read fails, these entries must not have to be claimed.
            came = await self.read(min(left, BLOCK.total_seconds()))
            held += came
            if self._stopping() and not came:
                break
            if deadline is None:
                if not held:
                    break
                deadline = time.monotonic() + self._interval.total_seconds()
            if 0 < len(came) < MOST_AT_ONCE // COUNT:
                # A read returns with the first entry that arrives. Under load each read would bring one or two.
                await asyncio.sleep(min(PAUSE, self._interval).total_seconds())

    async def waits(self) -> bool:
        """Returns whether there are entries, without a claim to any."""
        try:
            return any([await self._redis.xlen(stream) for stream in self._streams.readable])
        except ResponseError as error:
            await self._mend(error)
            return False

    async def read(self, block: float) -> list[Pending]:
        """Returns new entries as soon as there are any, none after `block` seconds."""
        shards = self._streams.readable
        if not shards:
            await asyncio.sleep(block)
            return []
        try:
            answer = await self._redis.xreadgroup(
                GROUP,
                self.consumer,
                dict.fromkeys(shards, ">"),
                count=MOST_AT_ONCE // COUNT,
                # A stopping flusher does not wait for new entries.
                block=None if self._stopping() else max(1, int(block * 1000)),
            )
        except ResponseError as error:
            await self._mend(error)
            return []
        return [
            Pending.read(shards[stream.decode()], id_.decode(), fields)
            for stream, entries in _streams(answer)
            for id_, fields in entries
        ]

    async def deliveries(self, one: Pending) -> int:
        """Returns how often an entry was delivered, 0 if Redis has lost it meanwhile."""
        try:
            pending = cast(
                "list[dict[str, Any]]",
                await self._redis.xpending_range(one.shard.stream, GROUP, min=one.id, max=one.id, count=1),
            )
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            pending = []
        return int(pending[0]["times_delivered"]) if pending else 0

    async def retire(self, *, own: bool) -> None:
        """Removes dead consumers that hold nothing, and with `own` this consumer if it holds nothing."""
        args = [GROUP, round(RETIRED / timedelta(milliseconds=1)), self.consumer if own else ""]
        for stream in self._streams.readable:
            await self._retire(keys=[stream], args=args)

    async def create_groups(self) -> None:
        """Creates the consumer group of each stream that has none."""
        for shard in self._streams.readable.values():
            await self._begin(keys=[shard.stream, shard.generation], args=[GROUP, secrets.token_hex(8)])

    def _enough(self, held: Collection[Pending]) -> bool:
        return sum(one.amount for one in held) >= self._amount or len(held) >= MOST_AT_ONCE

    async def _keep(self, aside: Collection[Pending]) -> None:
        """Keeps others from claiming entries that were set aside: each claimer would wait for them in turn."""
        if not aside or time.monotonic() - self._kept < ABANDONED.total_seconds() / 4:
            return
        for stream in self._streams.readable:
            if ids := [one.id for one in aside if one.shard.stream == stream]:
                claim = cast("Callable[..., Awaitable[Any]]", self._redis.xclaim)
                try:
                    await claim(stream, GROUP, self.consumer, 0, ids, justid=True)
                except ResponseError as error:
                    await self._mend(error)
        self._kept = time.monotonic()

    async def _claim_all(self, held: list[Pending], known: Collection[tuple[object, str]]) -> None:
        """Now and then, claims entries that have been unacknowledged for a long time, and adds them to `held`."""
        if time.monotonic() - self._claimed < ABANDONED.total_seconds() / 2:
            return
        if self._streams.trouble is not None:
            await self._streams.look()
        for shard in self._streams.readable.values():
            try:
                await self._claim(shard, held, known)
            except ResponseError as error:
                await self._mend(error)
            if self._enough(held):
                return  # There may be more.
        await self.retire(own=False)
        self._claimed = time.monotonic()

    async def _claim(self, shard: Shard, held: list[Pending], known: Collection[tuple[object, str]]) -> None:
        cursor: Any = "0-0"
        while not self._enough(held):
            # Redis 7 answers a third part: ids that are gone from the stream and no longer pending.
            cursor, entries, *deleted = await self._redis.xautoclaim(
                shard.stream,
                GROUP,
                self.consumer,
                min_idle_time=int(ABANDONED.total_seconds() * 1000),
                start_id=cursor,
                count=MOST_AT_ONCE // COUNT,
            )
            there = [Pending.read(shard, one[0].decode(), one[1]) for one in entries if one[0] is not None]
            held += [one for one in there if (one.shard, one.id) not in known]
            self._gone(sum(map(len, deleted)))
            if len(there) < len(entries):  # Redis 6.2 answers (None, None) for them, and assigns them to us.
                await self._acknowledge_gone(shard.stream)
            if cursor in (b"0-0", "0-0"):
                return

    async def _acknowledge_gone(self, stream: str) -> None:
        last = b"0"
        while True:
            answer = await self._redis.xreadgroup(GROUP, self.consumer, {stream: last}, count=1000)
            ours = [one for _stream, entries in _streams(answer) for one in entries]
            if not ours:
                return
            last = ours[-1][0]
            if gone := [id_ for id_, fields in ours if not fields]:
                await self._redis.xack(stream, GROUP, *gone)
                self._gone(len(gone))

    def _gone(self, count: int) -> None:
        if count:
            logger.warning("%d entries were removed from the stream before they were flushed.", count)
            self._observe(Flow.GONE, count)

    async def _mend(self, error: ResponseError) -> None:
        """Creates missing groups again, or leaves out a name that is no stream. Raises any other error."""
        if str(error).startswith("NOGROUP"):
            await self.create_groups()
        elif not (is_no_stream(error) and await self._streams.look()):
            raise error


def _streams(answer: Any) -> list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]:
    # redis-py's type is a union over protocols and decoding; ours is RESP2, undecoded.
    return cast("list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]", answer)
