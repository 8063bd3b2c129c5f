"""Watches keys that other processes load: one lookup after the other, once for all readers of this process who wait.

    a lookup finds the value           →  they have it
             finds another lease       →  goes on, and looks as often as at the beginning
             is granted the lease, or meets one of this process or of a writer  →  they have that, and act on it

What can go wrong: whatever a lookup raises, those who wait for it raise.
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
"""Who waits for a load of another process looks this often, and less often as time goes by: after each thirtieth of the
time that the load was seen to take. So its value comes late by a few percent of that, however long it is."""


class Watch(Generic[K, V]):
    """The keys of one region that are watched. `is_ours` says whether the load under a lease is for this process to
    make, or is under way in it."""

    def __init__(self, region: Region[K, V], is_ours: Callable[[K, Lease[V]], bool]) -> None:
        self._region, self._is_ours = region, is_ours
        self._waiting: dict[K, list[asyncio.Future[Reading[V] | Lease[V]]]] = {}

    def ask(self, key: K) -> "asyncio.Future[Reading[V] | Lease[V]]":
        """What a lookup says of a key, when it is time to do something about it."""
        news: asyncio.Future[Reading[V] | Lease[V]] = asyncio.get_running_loop().create_future()
        if key in self._waiting:
            self._waiting[key].append(news)
        else:
            self._waiting[key] = [news]
            self._region.start(self._look(key))
        return news

    async def _look(self, key: K) -> None:
        """Asks again and again, while somebody waits."""
        load, began = "", time.monotonic()
        while self._waiting[key]:
            pause = max(POLL.total_seconds(), (time.monotonic() - began) / 30)
            await asyncio.sleep(pause * (0.5 + random.random()))
            # Whoever begins to wait from here on may have started after a write that this lookup does not see.
            waiting, self._waiting[key] = [news for news in self._waiting[key] if not news.done()], []
            if not waiting:
                continue
            try:
                answer = await self._region.lookup(key)
            except Exception as error:  # noqa: BLE001  # Those who wait raise it.
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
