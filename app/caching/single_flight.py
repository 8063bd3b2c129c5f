"""Who loads a missing key, and who waits: one load for all readers of all processes.

    a reader misses  →  lookup: a lease  →  loads, fills                       (the leader)
                     →  lookup: wait     →  joins the leader's load, if it runs in this process and holds that lease
                                         →  else polls, until the value is there or the lease is free (`watch.py`)

Leases are from "Scaling Memcache at Facebook" (Nishtala et al., NSDI 2013): a miss hands out a token, an invalidation
voids it, a fill needs it. Joining a load in one's own process is what Go's `singleflight` does; it is not safe by key:

    R1 misses, gets lease t1, loads v0, and stalls
                                                        W commits v1, invalidates (t1 is void), answers
    R2 misses, and joins the load of that key           R2 answers v0, though it started after W was answered

So a reader joins by the token that its own lookup answered, and shares the result only if that lease stood to the end.

An entry is loaded anew a little before it is stale, by one of those who hit it: the sooner, the longer its load takes
(XFetch: Vattani, Chierichetti and Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015).

What can go wrong: `LoadTimeout` after `PATIENCE`, never a query nobody bounds. A failed load fails for all that share
it, and they get the old value where one is left. Without Redis, `Overloaded` when too many ask the database.
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
"""A reader waits longer than a lease lives, so that it outlives a holder that died."""

Load = Callable[[K], Awaitable[V | Locked[V] | None]]
"""Asks the database for one row; None when there is none. Locked, when a writer may be changing it."""


@dataclass(frozen=True, slots=True)
class Landing(Generic[V]):
    """What a load brought, and whether its lease stood until it was filled: then all who waited for it may have it."""

    reading: Reading[V]
    shared: bool


class SingleFlight(Generic[K, V]):
    """The loads under way in this process, by key and lease token."""

    def __init__(self, region: Region[K, V]) -> None:
        self._region = region
        self._asked: dict[K, asyncio.Task[Reading[V]]] = {}
        self._loads: dict[tuple[K, str], asyncio.Task[Landing[V]]] = {}
        self._watch = Watch(region, self._is_ours)
        self._bypasses: dict[K, asyncio.Task[V | Locked[V] | None]] = {}
        self._refreshes: dict[K, asyncio.Task[None]] = {}

    async def get(self, key: K, load: Load[K, V]) -> Reading[V]:
        """The value of `key`, which was not found: from our own load, or from whoever loads it.

        When Redis does not answer, from the database, and not kept. Raises LoadTimeout, Overloaded, and what `load`
        raises.
        """
        # In a task of its own: a reader that goes away between its lookup and its load would leave a lease that nobody
        # uses, and all others would wait until it lapses. It begins at the end of this tick, so whoever asks until
        # then has asked before it does, and may have what it brings.
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
        """The value of `key` from the database, for when Redis cannot be asked. Raises Overloaded, and what `load`
        raises."""
        reading = await self._bypass(key, load, Outcome.BYPASSED)
        self._region.report(Event(reading.outcome))
        return reading

    def refresh(self, key: K, hit: Reading[V], load: Load[K, V]) -> None:
        """Perhaps loads `key` anew, behind the back of whoever hit it: the nearer its end and the longer its load, the
        likelier."""
        # No draw is worth more than 37 loads: for nearly every hit the first comparison is all there is.
        if hit.ttl_ms < hit.cost_ms * 37 and hit.ttl_ms < hit.cost_ms * -math.log(1 - random.random()):
            self._shared(self._refreshes, key, lambda: self._refresh(key, load))

    async def _refresh(self, key: K, load: Load[K, V]) -> None:
        with suppress(Exception):  # Whatever it was, it was reported where it came up, and the entry is still fresh.
            token = await self._region.claim(key)
            if token is not None:
                self._region.report(Event.REFRESHED)
                await self._load((key, token), load)

    async def _get(self, key: K, load: Load[K, V]) -> Reading[V]:
        # Whoever asks from here on may have started after a write that the lookup below does not see, and gets his own.
        del self._asked[key]
        deadline = time.monotonic() + PATIENCE.total_seconds()
        outcome = Outcome.HIT
        try:
            answer = await self._region.lookup(key)
            while isinstance(answer, Lease):
                lease = answer
                if lease.writers:
                    # It has taken the value away, and may commit at any moment: there is nothing to wait for.
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
        """Whether the load under this lease is for this process to make, or is under way in it."""
        return lease.granted or (key, lease.token) in self._loads

    async def _landing(self, key: K, lease: Lease[V], load: Load[K, V], deadline: float) -> Reading[V] | None:
        """What the load under this lease brings for a reader that met it; None: ask again."""
        flight = (key, lease.token)
        leads = flight not in self._loads
        landing = await self._until(deadline, self._load(flight, load), key)
        # Whoever was granted the lease asked before the load began: its result is theirs even if a write came between.
        # Whoever joined later may have started after that write was answered, and asks again.
        if not lease.granted and not landing.shared:
            return None
        return landing.reading if leads else landing.reading._replace(outcome=Outcome.COLLAPSED)

    async def _news(self, key: K, deadline: float) -> Reading[V] | Lease[V]:
        """What a lookup says of a key that another process loads, when it is time to do something about it."""
        news = self._watch.ask(key)
        try:
            return await self._until(deadline, news, key)
        finally:
            news.cancel()  # Nobody waits for it any more.

    async def _until(self, deadline: float, task: asyncio.Future[T], key: K) -> T:
        # The task is shared: a deadline may not cancel it.
        done, _ = await asyncio.wait({task}, timeout=max(0.0, deadline - time.monotonic()))
        if not done or self._region.closing:
            raise LoadTimeout(f"Somebody loads {key!r}, and was not done within {PATIENCE.total_seconds():g} s.")
        return task.result()

    def _load(self, flight: tuple[K, str], load: Load[K, V]) -> asyncio.Task[Landing[V]]:
        return self._shared(self._loads, flight, lambda: self._fly(*flight, load))

    async def _fly(self, key: K, token: str, load: Load[K, V]) -> Landing[V]:
        began, losses = time.monotonic(), self._region.breaker.losses
        try:
            # What comes later than its lease ends can be kept by nobody, and another reader loads by then.
            async with asyncio.timeout(LEASE.total_seconds()):
                value = await load(key)
            if isinstance(value, Locked):
                await self._region.release(key, token)
                return Landing(self._region.unkept(value.value, Outcome.LOCKED), shared=False)
            cost = timedelta(seconds=time.monotonic() - began)
            reading, fill = await self._region.fill(key, token, value, cost, losses)
        except BaseException as error:
            self._region.report(Event.LOAD_FAILED)
            logger.warning("A load of %r failed: %r", key, error)
            # The next reader shall try at once, and not when the lease ends.
            await self._region.release(key, token)
            if isinstance(error, TimeoutError):
                raise LoadTimeout(f"The load of {key!r} took longer than {LEASE.total_seconds():g} s.") from error
            raise
        self._region.report(Event.LOADED, cost)
        return Landing(reading, shared=fill in (Fill.STORED, Fill.BELOW))

    async def _bypass(self, key: K, load: Load[K, V], outcome: Outcome) -> Reading[V]:
        # All who ask before a query begins share it, and nobody who comes later: a hot key costs one query at a time
        # for each turn, and nobody gets what is older than the question.
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
    """When every reader has gone there is nobody to retrieve an error, which was reported where it came up."""
    task.add_done_callback(lambda task: task.cancelled() or task.exception())
    return task


def _unlocked(value: V | Locked[V] | None) -> V | None:
    return value.value if isinstance(value, Locked) else value
