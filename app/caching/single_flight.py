"""Who loads a missing key, and who waits: one load for all readers of all processes.

    a reader misses  →  lookup: a lease  →  loads, fills                       (the leader)
                     →  lookup: wait     →  joins the leader's load, if it runs in this process and holds that lease
                                         →  else polls, until the value is there or the lease is free

Leases are from "Scaling Memcache at Facebook" (Nishtala et al., NSDI 2013): a miss hands out a token, an invalidation
voids it, a fill needs it. Joining a load in one's own process is what Go's `singleflight` does; it is not safe by key:

    R1 misses, gets lease t1, loads v0, and stalls
                                                        W commits v1, invalidates (t1 is void), answers
    R2 misses, and joins the load of that key           R2 answers v0, though it started after W was answered

So a reader joins by the token that its own lookup answered, and shares the result only if that lease stood to the end.

What can go wrong: `LoadTimeout` after `PATIENCE`, never a query nobody bounds. A failed load fails for all that share
it, and they get the old value where one is left.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Generic, TypeVar

from app.caching.errors import CacheUnavailable, LoadTimeout
from app.caching.lease import Fill, K, Lease, Locked
from app.caching.observing import Event
from app.caching.reading import Outcome, Reading, V
from app.caching.region import Region

logger = logging.getLogger(__name__)
T = TypeVar("T")

PATIENCE = timedelta(seconds=5)
"""A reader waits longer than a lease lives, so that it outlives a holder that died."""
POLL = timedelta(milliseconds=10)

Load = Callable[[K], Awaitable[V | Locked[V] | None]]
"""Asks the database for one row; None when there is none. Locked, when a writer may be changing it."""


@dataclass(frozen=True, slots=True)
class Landing(Generic[V]):
    """What a load brought, and whether its lease stood until it was filled: then all who waited for it may have it."""

    reading: Reading[V]
    shared: bool


class SingleFlight(Generic[K, V]):
    """The loads under way in this process, and the waits for those of others, by key and lease token."""

    def __init__(self, region: Region[K, V]) -> None:
        self._region = region
        self._loads: dict[tuple[K, str], asyncio.Task[Landing[V]]] = {}
        self._waits: dict[tuple[K, str], asyncio.Task[Reading[V] | Lease[V]]] = {}

    async def get(self, key: K, load: Load[K, V]) -> Reading[V]:
        """The value of `key`, which was not found: from our own load, or from whoever loads it.

        Raises LoadTimeout, CacheUnavailable, and what `load` raises.
        """
        reading = await self._get(key, load)
        self._region.report(Event(reading.outcome))
        return reading

    async def _get(self, key: K, load: Load[K, V]) -> Reading[V]:
        deadline = time.monotonic() + PATIENCE.total_seconds()
        answer = await self._region.lookup(key)
        outcome = Outcome.HIT
        while isinstance(answer, Lease):
            if answer.writers:
                # A writer's token: it has taken the value away, and may commit at any moment. Ask past the cache.
                value = await load(key)
                return self._region.unkept(value.value if isinstance(value, Locked) else value, Outcome.LOCKED)
            flight, granted, old = (key, answer.token), answer.granted, answer.old
            try:
                if granted or flight in self._loads:
                    leads = flight not in self._loads
                    landing = await self._until(deadline, self._load(flight, load), key)
                    # Whoever was granted the lease asked before the load began: its result is theirs even if a write
                    # came between. Whoever joined later may have started after that write was answered, and asks again.
                    if granted or landing.shared:
                        return landing.reading if leads else replace(landing.reading, outcome=Outcome.COLLAPSED)
                    answer = await self._region.lookup(key)
                else:
                    answer = await self._until(deadline, self._wait(flight), key)
            except CacheUnavailable:
                raise
            except Exception:
                if old is None:
                    raise
                return old
            outcome = Outcome.COLLAPSED
        return replace(answer, outcome=outcome)

    async def _until(self, deadline: float, task: asyncio.Task[T], key: K) -> T:
        # The task is shared: neither a deadline nor a reader that goes away may cancel it.
        done, _ = await asyncio.wait({task}, timeout=max(0.0, deadline - time.monotonic()))
        if not done:
            raise LoadTimeout(f"Somebody loads {key!r}, and was not done within {PATIENCE.total_seconds():g} s.")
        return task.result()

    def _load(self, flight: tuple[K, str], load: Load[K, V]) -> asyncio.Task[Landing[V]]:
        return self._shared(self._loads, flight, lambda: self._fly(*flight, load))

    def _wait(self, flight: tuple[K, str]) -> asyncio.Task[Reading[V] | Lease[V]]:
        return self._shared(self._waits, flight, lambda: self._poll(*flight))

    async def _fly(self, key: K, token: str, load: Load[K, V]) -> Landing[V]:
        began = time.monotonic()
        try:
            value = await load(key)
        except BaseException as error:
            self._region.report(Event.LOAD_FAILED)
            logger.warning("A load of %r failed: %r", key, error)
            # The next reader shall try at once, and not when the lease ends.
            await self._region.release(key, token)
            raise
        if isinstance(value, Locked):
            await self._region.release(key, token)
            return Landing(self._region.unkept(value.value, Outcome.LOCKED), shared=False)
        cost = timedelta(seconds=time.monotonic() - began)
        self._region.report(Event.LOADED, cost)
        reading, fill = await self._region.fill(key, token, value, cost)
        return Landing(reading, shared=fill is not Fill.LOST)

    async def _poll(self, key: K, holder: str) -> Reading[V] | Lease[V]:
        # It ends: a lease that nobody gives back lapses. Those who joined this poll met the same holder in a lookup of
        # their own, so whatever has changed since is news for all of them.
        while not self._region.closing:
            await asyncio.sleep(POLL.total_seconds() * (0.5 + random.random()))
            answer = await self._region.lookup(key)
            if not isinstance(answer, Lease) or answer.token != holder:
                return answer
        raise LoadTimeout(f"Somebody loads {key!r}, and this cache is being closed.")

    def _shared(
        self,
        tasks: dict[tuple[K, str], asyncio.Task[T]],
        flight: tuple[K, str],
        work: Callable[[], Coroutine[Any, Any, T]],
    ) -> asyncio.Task[T]:
        task = tasks.get(flight)
        if task is None:
            task = tasks[flight] = self._region.start(work())

            def landed(task: asyncio.Task[T]) -> None:
                del tasks[flight]
                # When every reader has gone there is nobody to retrieve an error, which was reported where it came up.
                if not task.cancelled():
                    task.exception()

            task.add_done_callback(landed)
        return task
