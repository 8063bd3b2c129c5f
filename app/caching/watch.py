"""Polls keys that other processes load: one lookup at a time, shared by all waiting readers of this process.

    a lookup finds the value           →  the readers get it
             finds another lease       →  polling continues, at its first interval again
             is granted the lease, or meets one of this process or of a writer  →  the readers get that, and act on it

What can go wrong: the waiting readers raise whatever a lookup raises.
"""

import asyncio
import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Generic

from .lease import K, Lease
from .reading import Reading, V
from .region import Region

POLL = timedelta(milliseconds=4)
"""First poll interval while another process loads. Later it is a thirtieth of the time that the load was seen to take,
so a value is late by a few percent of its load time."""


class Watch(Generic[K, V]):
    """The watched keys of one region. `is_ours` says whether this process must make the load under a lease, or has it
    in flight."""

    def __init__(self, region: Region[K, V], is_ours: Callable[[K, Lease[V]], bool]) -> None:
        self._region, self._is_ours = region, is_ours
        self._waiting: dict[K, list[asyncio.Future[Reading[V] | Lease[V]]]] = {}

    def ask(self, key: K) -> "asyncio.Future[Reading[V] | Lease[V]]":
        """Returns a future of the lookup that calls for action on a key."""
        news: asyncio.Future[Reading[V] | Lease[V]] = asyncio.get_running_loop().create_future()
        if key in self._waiting:
            self._waiting[key].append(news)
        else:
            self._waiting[key] = [news]
            self._region.start(self._look(key))
        return news

    async def _look(self, key: K) -> None:
        """Polls a key while any reader waits for it."""
        load, began = "", time.monotonic()
        while self._waiting[key]:
            pause = max(POLL.total_seconds(), (time.monotonic() - began) / 30)
            await asyncio.sleep(pause * (0.5 + random.random()))
            # A reader that begins to wait from here on may have started after a write that this lookup does not see.
            waiting, self._waiting[key] = [news for news in self._waiting[key] if not news.done()], []
            if not waiting:
                continue
            try:
                answer = await self._region.lookup(key)
            except Exception as error:  # noqa: BLE001  # The waiting readers raise it.
                for news in waiting:
                    if not news.done():
                        news.set_exception(error)
                continue
            seen = answer.token if isinstance(answer, Lease) else ""
            if seen != load:
                load, began = seen, time.monotonic()
            if isinstance(answer, Lease) and not (answer.writers or self._is_ours(key, answer) or self._region.closing):
                self._waiting[key] += waiting
                continue
            if isinstance(answer, Lease) and answer.granted and all(news.done() for news in waiting):
                await self._region.release(key, answer.token)
            for news in waiting:
                if not news.done():
                    news.set_result(answer)
        del self._waiting[key]
