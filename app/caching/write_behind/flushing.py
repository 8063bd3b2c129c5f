"""Flushing: the entries of one place, from the stream to the database, each batch once.

    gather   some entries of the stream (`gathering.py`)
    flush    one transaction: the ledger, and the counters of the batches that are new to it
    forget   acknowledge and delete the entries, and begin a new generation (`forgetting.py`)

While the database is down, the entries are held and retried.

Entries that the database refuses for their content (`Refused`) or has not written (`NotDone`) must not block the rest.
It tries half as many entries, then half of those, until an entry is alone. An entry refused alone is salvaged
(`dead_letters.py`). An entry that was not done alone is set aside and retried on its own (`set_aside.py`).

What can go wrong: Redis or the database is down. It waits, and continues by itself.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Self

from ..errors import CacheUnavailable, NotDone, Refused
from ..observing import Flow, ObserveFlow
from ..repeating import Repeating
from .dead_letters import DeadLetters
from .forgetting import Forgetting
from .gathering import MOST_AT_ONCE, Gathering
from .life import Life
from .pending import Pending
from .place import Place
from .set_aside import Aside, SetAside
from .target import Target, only

logger = logging.getLogger(__name__)

NEWS = timedelta(milliseconds=100)
"""How long it waits before it asks again whose the entries are."""
DRAIN = timedelta(seconds=3)
"""How long a stopping flusher continues to flush while there are entries."""
MOST_ROWS = 10_000
"""The most rows that one transaction writes: far fewer than a database writes within a statement timeout."""


class Flushing:
    """One task that flushes within its `async with`: when `amount` has gathered, or when the first entry is `interval`
    old. It reads as `consumer`."""

    def __init__(
        self, place: Place, target: Target, consumer: str, *, amount: int, interval: timedelta, observe: ObserveFlow
    ) -> None:
        self._flush, self._place, self._observe = only(target.flush, Refused), place, observe
        name = "flusher" if len(place.shards) > 1 else f"flusher of {place.shards[0].stream}"
        self._repeating = Repeating(name, self._repeat, lambda: observe(Flow.FAILURES, 1))
        self._gathering = Gathering(
            place.draining,
            place.shards,
            consumer,
            amount=amount,
            interval=interval,
            stopping=lambda: self._repeating.stopping,
            observe=observe,
        )
        self._forgetting = Forgetting(place)
        self._dead_letters = DeadLetters(only(target.salvage), self._gathering, observe)
        self._held: list[Pending] = []
        self._aside = SetAside()
        self._counted = self._dead = 0
        self._most, self._careful = MOST_AT_ONCE, False

    async def __aenter__(self) -> Self:
        self._repeating.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Flushes the remaining entries for at most `DRAIN`. The rest stays in Redis, for other flushers or the next
        start."""
        await self._repeating.stop()
        deadline = time.monotonic() + DRAIN.total_seconds()
        try:
            while time.monotonic() < deadline and await self.round():
                continue
            await self._gathering.retire(own=True)
        except Exception as error:  # noqa: BLE001  # Nothing is lost, and other parts still have to stop.
            logger.warning("The flusher stops and leaves the pending entries in Redis: %r", error)

    @property
    def alive(self) -> bool:
        """Whether the task runs and its rounds end."""
        return self._repeating.alive

    @property
    def trouble(self) -> Exception | None:
        """Why it repeatedly flushes nothing or not everything, None if all is well."""
        return self._repeating.trouble or self._gathering.trouble or self._aside.trouble

    async def _repeat(self) -> timedelta:
        await self.round()
        return timedelta(0)

    async def round(self) -> int:
        """Gathers, flushes and forgets once, and returns how many entries it had. It also flushes a Redis that was
        replaced by another one, but not a Redis of another deployment: those entries are not ours. Raises
        CacheUnavailable."""
        if self._place.identity.ours is False:
            self._held.clear()  # Their owner claims them.
            self._aside.clear()
            raise CacheUnavailable(f"Nothing is flushed from this Redis: {self._place.identity.refused}.")
        if self._place.identity.ours is None and not self._held:
            # An entry that is gathered is kept from its owner for a while.
            if await self._gathering.waits():
                self._life()  # It raises.
            await asyncio.sleep(NEWS.total_seconds())
            return 0
        if self._aside.full:
            await self._try_again()
        if not self._held:
            await self._gathering.gather(self._held, self._aside.entries)
        count = len(self._held)
        while self._held:
            # Failed entries are held and retried: nothing is read meanwhile.
            if not self._counted:
                life = self._life()
                counted = await self._count(_some(self._held, self._most))
                # The flush is on its way to the old primary    another one is promoted, and the next epoch begins
                # the old one commits it: if Redis forgot the entries now, no believed database would have them
                if life != self._place.life:
                    continue
                self._counted = counted
            # If this fails, the entries are already counted and only have to be forgotten.
            await self._forget(self._held[: self._counted], self._dead)
            del self._held[: self._counted]
            self._counted = self._dead = 0
        await self._try_again()
        self._observe(Flow.FLUSHES, 1 if count else 0)
        return count

    def _life(self) -> Life:
        """Returns the life of Redis in which entries are counted now."""
        if self._place.identity.ours is None:
            raise CacheUnavailable("It is not known yet whether the entries in this Redis are ours to flush.")
        return self._place.life

    async def _count(self, entries: Sequence[Pending]) -> int:
        """Counts some of the first entries, at least one, and returns how many."""
        # After Redis was restored from a copy, a batch may be in two entries: it counts once.
        batches = {entry.batch.id: entry.batch for entry in entries if entry.batch is not None}
        if not batches:
            return await self._salvaged(entries[0], "It is no batch.")
        try:
            rows = await self._flush(list(batches.values()))
        except Refused as error:
            if len(entries) == 1:
                return await self._salvaged(entries[0], str(error))
            self._most = len(entries) // 2
            return await self._count(entries[: self._most])
        except NotDone as error:
            self._hurry_less(entries, error)
            raise
        self._note(rows)
        # Double once a refused entry is gone. Grow by one after `NotDone`: another one would cost a wait again.
        self._most = min(self._most + 1 if self._careful else self._most * 2, MOST_AT_ONCE)
        self._careful = self._careful and self._most < MOST_AT_ONCE
        return len(entries)

    async def _salvaged(self, entry: Pending, reason: str) -> int:
        """Salvages the first entry, and returns 1: the number of entries done."""
        try:
            self._dead = await self._rescue(entry, reason)
        except NotDone as error:
            self._hurry_less([entry], error)
            raise
        return 1

    def _hurry_less(self, entries: Sequence[Pending], error: NotDone) -> None:
        """Halves the next flush. Sets an entry aside if it was alone."""
        self._careful, self._most = True, max(1, len(entries) // 2)
        if len(entries) == 1 and not self._aside.full:
            self._aside.put(entries[0], error)
            self._held.remove(entries[0])

    async def _try_again(self) -> None:
        """Retries the entries that are due, each on its own, until one fails again."""
        for aside in self._aside.due:
            life = self._life()
            try:
                aside.dead += await self._count_alone(aside)
            except NotDone as error:
                logger.warning("Entry %s failed again: %s", aside.entry.place, error)
                self._observe(Flow.FAILURES, 1)
                self._aside.failed(aside, error)
                return
            if life == self._place.life:
                await self._forget([aside.entry], aside.dead)
                self._aside.remove(aside)

    async def _count_alone(self, aside: Aside) -> int:
        """Counts an entry that was set aside, and returns how much of it became dead letters."""
        batch = aside.entry.batch
        if batch is None:
            return await self._rescue(aside.entry, str(aside.error))
        try:
            self._note(await self._flush([batch]))
        except Refused as error:
            return await self._rescue(aside.entry, str(error))
        return 0

    async def _rescue(self, entry: Pending, reason: str) -> int:
        rows, dead = await self._dead_letters.keep(entry, reason)
        await self._forgetting.forget_totals(entry)
        self._note(rows)
        return dead

    def _note(self, rows: int) -> None:
        self._observe(Flow.ROWS, rows)
        if rows:
            self._aside.counted()

    async def _forget(self, entries: Sequence[Pending], dead: int) -> None:
        for amount in await self._forgetting.forget(entries):
            self._observe(Flow.FLUSHED, max(0, amount - dead))  # An entry with dead letters is alone here.


def _some(entries: Sequence[Pending], most: int) -> Sequence[Pending]:
    """Returns as many of the first entries as fit one transaction, at least one. An entry without a batch is alone."""
    rows = 0
    for place, entry in enumerate(entries[:most]):
        rows += len(entry.batch.amounts) if entry.batch else MOST_ROWS + 1
        if place and (rows > MOST_ROWS or entries[0].batch is None):
            return entries[:place]
    return entries[:most]
