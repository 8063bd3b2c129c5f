"""The backlog: what is pending for the database, as Redis counts it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from ..errors import CacheUnavailable
from .acceptance import CAP, Cap
from .life import Life
from .place import Place
from .scripts import run, script
from .shard import COUNT, GROUP, Shard

logger = logging.getLogger(__name__)

PATIENCE = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is pending: the amount, its bytes, and the age of the oldest entry (None if there is none). `young` is the
    amount that was accepted within the requested time. `fill` is how full the fullest shard is: at 1 it accepts nothing
    more. `flushers` is the number of flushers. The records of the idempotency keys of the last 24 hours take
    `record_bytes`. `record_fill` is how full the fullest shard is of them: at 1 it accepts no new idempotency key."""

    amount: int
    bytes: int
    oldest: timedelta | None
    young: int
    fill: float
    flushers: int
    record_bytes: int
    record_fill: float


class Waiting:
    """Asks Redis what is pending in some shards."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = [(place, shard) for place in places for shard in place.shards]
        self._clock, self._script = places[0].clock, script(places[0].redis, "waiting")

    async def look(self, cap: Cap, young: timedelta | None) -> Backlog:
        """Returns what is pending, compared with its cap. Raises CacheUnavailable if one shard does not say."""
        now = self._clock.now()
        since = "-" if young is None else max(0, int(now - young / timedelta(milliseconds=1))) if young else "+"
        answers = await asyncio.gather(*(self._ask(place, shard, since) for place, shard in self._places))
        amounts, size, oldest, recent, names, entries, records = zip(*answers, strict=True)
        times = [int(first.split(b"-")[0]) for first in oldest if first]
        return Backlog(
            amount=sum(map(int, amounts)),
            bytes=sum(map(int, size)),
            oldest=timedelta(milliseconds=max(0.0, now - min(times))) if times else None,
            young=sum(map(int, recent)),
            fill=max(
                max(map(int, entries)) / max(1, cap.entries // COUNT), max(map(int, size)) / max(1, cap.bytes // COUNT)
            ),
            flushers=len({name for each in names for name in each}),
            record_bytes=sum(map(int, records)),
            record_fill=max(map(int, records)) / max(1, cap.records // COUNT),
        )

    async def _ask(self, place: Place, shard: Shard, since: str | int) -> Any:
        try:
            return await run(self._script, partial(_question, shard, since), place)
        except CacheUnavailable as error:
            if len(self._places) == len(place.shards):
                raise
            # A sum without this part would look as if less, or nothing, were pending.
            raise CacheUnavailable(f"What is pending in {shard.stream} is unknown. {error}") from error

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Watches while the block lasts: logs a warning if something is pending and no process has a
        flusher."""
        task = asyncio.create_task(self._look_for_flushers())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _look_for_flushers(self) -> None:
        while True:
            await asyncio.sleep(PATIENCE.total_seconds())
            with suppress(CacheUnavailable):
                backlog = await self.look(CAP, None)
                if backlog.flushers:
                    return
                # Before the first entry, a flusher has nothing to read, and is not known in Redis.
                if backlog.oldest is not None:
                    name = self._places[0][1].name
                    logger.warning("Nobody flushes %s, so what is accepted stays in Redis. Is a Flusher running?", name)
                    return


def _question(shard: Shard, since: str | int, life: Life) -> tuple[list[str], list[str | int]]:
    return [shard.stream, shard.backlog, shard.bytes, shard.keyed], [GROUP, since]
