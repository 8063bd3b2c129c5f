"""Single flight: one load of a missing key for all readers of all processes.

    a reader misses  →  lookup: a lease  →  loads, fills                       (the leader)
                     →  lookup: wait     →  joins the leader's load, if it runs in this process and holds that lease
                                         →  else polls, until the value is there or the lease is free (`watch.py`)

Leases come from "Scaling Memcache at Facebook" (Nishtala et al., NSDI 2013): a miss hands out a token, an invalidation
voids it, and a fill needs it. Go's `singleflight` joins loads within a process by key, which is not safe:

    R1 misses, gets lease t1, loads v0, and stalls
                                                        W commits v1, invalidates (t1 is void), answers
    R2 misses, and joins the load of that key           R2 answers v0, although it started after W was answered

So a reader joins by the token that its own lookup returned, and shares the result only if that lease held to the end.

One of the readers that hit an entry reloads it a little before it is stale. The longer its load takes, the earlier
(XFetch: Vattani, Chierichetti and Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015).

What can go wrong: `LoadTimeout` after `PATIENCE`; no query runs unbounded. A failed load fails for all readers that
share it, but they get the old value if one is left. Without Redis, `Overloaded` if too many reads query the database.
"""

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from .errors import CacheUnavailable, LoadTimeout
from .lease import LEASE, Fill, K, Lease, Locked
from .observing import Event
from .reading import Outcome, Reading, V
from .region import Region
from .watch import Watch

logger = logging.getLogger(__name__)
T = TypeVar("T")
F = TypeVar("F")

PATIENCE = timedelta(seconds=5)
"""How long a reader waits for a load. It exceeds `LEASE`, so a reader outlasts the lease of a dead holder."""

Load = Callable[[K], Awaitable[V | Locked[V] | None]]
"""Queries the database for one row: None if there is none, Locked if a writer may be changing it."""


@dataclass(frozen=True, slots=True)
class Landing(Generic[V]):
    """The result of a load, and whether its lease held until the fill: then all waiting readers may share it.

    A row below the floor, too: its load began after the invalidation that set the floor, so a primary returned the
    present row, deleted and created again with a lower version.
    """

    reading: Reading[V]
    shared: bool


class SingleFlight(Generic[K, V]):
    """The loads in flight in this process, by key and lease token."""

    def __init__(self, region: Region[K, V]) -> None:
        self._region = region
        self._asked: dict[K, asyncio.Task[Reading[V]]] = {}
        self._loads: dict[tuple[K, str], asyncio.Task[Landing[V]]] = {}
        self._watch = Watch(region, self._is_ours)
        self._bypasses: dict[K, asyncio.Task[V | Locked[V] | None]] = {}
        self._refreshes: dict[K, asyncio.Task[None]] = {}

    async def get(self, key: K, load: Load[K, V]) -> Reading[V]:
        """Returns the value of a missing `key`, from our own load or from another one in flight.

        If Redis does not answer, the value comes from the database and is not cached. Raises LoadTimeout, Overloaded,
        and whatever `load` raises.
        """
        # In its own task: a reader cancelled between its lookup and its load would leave an unused lease, and all
        # others would wait until it lapses. The task begins at the end of this tick, so every reader that joins by
        # then asked before it began, and may share its result.
        task = self._asked.get(key)
        leads = task is None
        if task is None:
            task = self._asked[key] = _heard(self._region.start(self._get(key, load)))
        reading = await asyncio.shield(task)
        if not leads and reading.outcome is Outcome.MISS:
            reading = reading._replace(outcome=Outcome.COLLAPSED)
        self._region.report(Event(reading.outcome))
        return reading

    async def bypass(self, key: K, load: Load[K, V]) -> Reading[V]:
        """Returns the value of `key` from the database, when Redis cannot be asked. Raises Overloaded, and whatever
        `load` raises."""
        reading = await self._bypass(key, load, Outcome.BYPASSED)
        self._region.report(Event(reading.outcome))
        return reading

    def refresh(self, key: K, hit: Reading[V], load: Load[K, V]) -> None:
        """Sometimes reloads `key` in the background after a hit: the nearer the entry is to its end and the longer its
        load takes, the more likely."""
        # -log(1 - random()) is below 37, so for nearly every hit the first comparison decides.
        if hit.ttl_ms < hit.cost_ms * 37 and hit.ttl_ms < hit.cost_ms * -math.log(1 - random.random()):
            self._shared(self._refreshes, key, lambda: self._refresh(key, load))

    async def _refresh(self, key: K, load: Load[K, V]) -> None:
        with suppress(Exception):  # The error was reported where it was raised, and the entry is still fresh.
            token = await self._region.claim(key)
            if token is not None:
                self._region.report(Event.REFRESHED)
                await self._load((key, token), load)

    async def _get(self, key: K, load: Load[K, V]) -> Reading[V]:
        # A reader that asks from here on may have started after a write that this lookup does not see: it gets its own.
        del self._asked[key]
        outcome = Outcome.HIT
        try:
            answer = await self._region.lookup(key)
            deadline = time.monotonic() + PATIENCE.total_seconds()  # How long Redis took to answer is no load.
            while isinstance(answer, Lease):
                lease = answer
                if lease.granted:
                    deadline = time.monotonic() + PATIENCE.total_seconds()  # Nor is this load another one's.
                if lease.writers:
                    # The writer has removed the value and may commit at any moment: there is no load to wait for.
                    return await self._bypass(key, load, Outcome.LOCKED)
                try:
                    if self._is_ours(key, lease):
                        landing = await self._landing(key, lease, load, deadline)
                        if landing is not None:
                            return landing
                        answer = await self._region.lookup(key)
                    else:
                        answer = await self._news(key, deadline)
                except CacheUnavailable:
                    raise
                except Exception:
                    if lease.old is None:
                        raise
                    return lease.old
                outcome = Outcome.COLLAPSED
        except CacheUnavailable:
            return await self._bypass(key, load, Outcome.BYPASSED)
        return answer._replace(outcome=outcome)

    def _is_ours(self, key: K, lease: Lease[V]) -> bool:
        """Returns whether this process must make the load under this lease, or has it in flight."""
        return lease.granted or (key, lease.token) in self._loads

    async def _landing(self, key: K, lease: Lease[V], load: Load[K, V], deadline: float) -> Reading[V] | None:
        """Returns the result of the load under this lease for a reader that met it; None: look up again."""
        flight = (key, lease.token)
        leads = flight not in self._loads
        landing = await self._until(deadline, self._load(flight, load), key)
        # The readers that were granted the lease asked before the load began: they may use its result even if a write
        # came in between. A reader that joined later may have started after that write was answered: it asks again.
        if not lease.granted and not landing.shared:
            return None
        return landing.reading if leads else landing.reading._replace(outcome=Outcome.COLLAPSED)

    async def _news(self, key: K, deadline: float) -> Reading[V] | Lease[V]:
        """Waits for a key that another process loads, and returns the lookup that calls for action."""
        news = self._watch.ask(key)
        try:
            return await self._until(deadline, news, key)
        finally:
            news.cancel()  # Nobody waits for it any more.

    async def _until(self, deadline: float, task: asyncio.Future[T], key: K) -> T:
        # The task is shared: a deadline may not cancel it.
        done, _ = await asyncio.wait({task}, timeout=max(0.0, deadline - time.monotonic()))
        if self._region.closing:
            raise LoadTimeout(f"A load of {key!r} is not waited for: its region is closed, or is closing.")
        if not done:
            raise LoadTimeout(f"A load of {key!r} was not done within {PATIENCE.total_seconds():g} s.")
        return task.result()

    def _load(self, flight: tuple[K, str], load: Load[K, V]) -> asyncio.Task[Landing[V]]:
        return self._shared(self._loads, flight, lambda: self._fly(*flight, load))

    async def _fly(self, key: K, token: str, load: Load[K, V]) -> Landing[V]:
        began, losses = time.monotonic(), self._region.losses(key)
        try:
            # A row that arrives after its lease has ended cannot be cached, and another reader loads by then.
            async with asyncio.timeout(LEASE.total_seconds()):
                value = await load(key)
            if isinstance(value, Locked):
                await self._region.release(key, token)
                return Landing(self._region.unkept(value.value, Outcome.LOCKED), shared=False)
            cost = timedelta(seconds=time.monotonic() - began)
            # When the lease has ended, nothing is filled any more.
            reading, fill = await self._region.fill(key, token, value, cost, losses, within=LEASE - cost)
        except BaseException as error:
            self._region.report(Event.LOAD_FAILED)
            logger.warning("A load of %r failed: %r", key, error)
            # The next reader can try at once, without waiting for the lease to end.
            await self._region.release(key, token)
            if isinstance(error, TimeoutError):
                raise LoadTimeout(f"The load of {key!r} took longer than {LEASE.total_seconds():g} s.") from error
            raise
        self._region.report(Event.LOADED, cost)
        return Landing(reading, shared=fill in (Fill.STORED, Fill.BELOW))

    async def _bypass(self, key: K, load: Load[K, V], outcome: Outcome) -> Reading[V]:
        # All readers that ask before a query begins share it. Later readers do not, so no answer is older than its
        # question, and a hot key costs one query at a time for each turn.
        task = self._bypasses.get(key)
        if task is None:
            task = self._bypasses[key] = _heard(self._region.start(self._pass(key, load)))
        return self._region.unkept(_unlocked(await asyncio.shield(task)), outcome)

    async def _pass(self, key: K, load: Load[K, V]) -> V | Locked[V] | None:
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._region.bulkhead.turn())
            finally:
                self._bypasses.pop(key)
            return await load(key)

    def _shared(
        self, tasks: dict[F, asyncio.Task[T]], flight: F, work: Callable[[], Coroutine[Any, Any, T]]
    ) -> asyncio.Task[T]:
        task = tasks.get(flight)
        if task is None:
            task = tasks[flight] = _heard(self._region.start(work()))
            task.add_done_callback(lambda _: tasks.pop(flight))
        return task


def _heard(task: asyncio.Task[T]) -> asyncio.Task[T]:
    """Marks the task's error as retrieved: all readers may be gone, and it was reported where it was raised."""
    task.add_done_callback(lambda task: task.cancelled() or task.exception())
    return task


def _unlocked(value: V | Locked[V] | None) -> V | None:
    return value.value if isinstance(value, Locked) else value
