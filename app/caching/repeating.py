"""A task that does the same again and again, outlives what goes wrong, and stops when it is told.

A background task that dies is noticed by nobody: every request still gets its answer, while caches rot and writes pile
up. So this one survives every error, and says whether its rounds still end as they should.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from redis.exceptions import RedisError

from .errors import REDIS_DOWN, CacheError
from .words import said

AWAY = (CacheError, *REDIS_DOWN)
"""What says that a store is away: then nothing is wrong with the task."""

logger = logging.getLogger(__name__)

SOONEST, LATEST = timedelta(milliseconds=200), timedelta(seconds=2)
"""How long it waits after a failure: twice as long each time, between these two."""
STUCK = timedelta(seconds=15)
"""Without a round that ended well, or because a store is away, for this long, it counts as stuck."""
AGAIN = 3
"""So many rounds that failed one after the other are no accident."""


class Repeating:
    """`work` does it once, and answers how long to wait until the next time. `failed` is told of each error."""

    def __init__(self, name: str, work: Callable[[], Awaitable[timedelta]], failed: Callable[[], None]) -> None:
        self._name, self._work, self._failed = name, work, failed
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._last_round = self._last_end = time.monotonic()
        self._failures = 0
        self._error: Exception | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Repeats while the block lasts. At its end the round under way is finished, and not cancelled."""
        self.start()
        try:
            yield
        finally:
            await self.stop()

    def start(self) -> None:
        """Begins to repeat, also after an end."""
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        """Finishes the round under way, and returns when it has ended."""
        self._stop.set()
        if self._task is not None:
            await self._task

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop: a round that waits for something may end early."""
        return self._stop.is_set()

    @property
    def alive(self) -> bool:
        """Whether the task runs and its rounds end."""
        return self._runs(since=self._last_round)

    @property
    def trouble(self) -> Exception | None:
        """Why its last rounds have failed, where they all did, and ended; None, when they do not."""
        return self._error if self._failures >= AGAIN and self._runs(since=self._last_end) else None

    def _runs(self, *, since: float) -> bool:
        running = self._task is not None and not self._task.done()
        return running and time.monotonic() - since < STUCK.total_seconds()

    async def _run(self) -> None:
        after_failure = SOONEST
        while not self._stop.is_set():
            try:
                wait = await self._work()
                after_failure = SOONEST
                self._last_round = time.monotonic()
                self._failures, self._error = 0, None
            except Exception as error:  # noqa: BLE001  # Whatever it is: nobody would begin this task again.
                self._failed()
                self._failures, self._error = self._failures + 1, error
                wait, after_failure = after_failure, min(after_failure * 2, LATEST)
                logger.warning("The %s failed, next try in %g s: %s", self._name, wait.total_seconds(), _told(error))
                if isinstance(error, AWAY):
                    self._last_round = time.monotonic()
            self._last_end = time.monotonic()
            try:
                await asyncio.wait_for(self._stop.wait(), wait.total_seconds())
            except TimeoutError:
                continue


def _told(error: Exception) -> str:
    """Of what redis-py raises, its words name the server's address."""
    return f"Redis {said(error)}" if isinstance(error, RedisError | OSError | TimeoutError) else repr(error)
