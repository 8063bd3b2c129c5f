"""A task that repeats its work, survives every error, and stops on request.

Nobody notices when a background task dies: every request still gets its answer, while caches rot and writes pile up. So
this task survives every error, and reports whether its rounds still succeed.
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
"""Errors which mean that a store is down. Then nothing is wrong with the task."""

logger = logging.getLogger(__name__)

SOONEST, LATEST = timedelta(milliseconds=200), timedelta(seconds=2)
"""The shortest and the longest wait after a failure. The wait doubles with each failure."""
STUCK = timedelta(seconds=15)
"""The task counts as stuck after this time without a round that succeeded, or failed because a store is down."""
AGAIN = 3
"""The number of consecutive failures that count as trouble."""


class Repeating:
    """A repeated task. `work` makes one round, and returns the wait until the next. `failed` is called for each
    error."""

    def __init__(self, name: str, work: Callable[[], Awaitable[timedelta]], failed: Callable[[], None]) -> None:
        self._name, self._work, self._failed = name, work, failed
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._last_round = self._last_end = time.monotonic()
        self._failures = 0
        self._error: Exception | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Repeats while the block lasts. At the end, the current round is finished, not cancelled."""
        self.start()
        try:
            yield
        finally:
            await self.stop()

    def start(self) -> None:
        """Starts repeating, also after a stop."""
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        """Finishes the current round, and returns when it has ended."""
        self._stop.set()
        if self._task is not None:
            await self._task

    @property
    def stopping(self) -> bool:
        """Whether a stop was requested: a round that waits for something may end early."""
        return self._stop.is_set()

    @property
    def alive(self) -> bool:
        """Whether the task runs and its rounds end."""
        return self._runs(since=self._last_round)

    @property
    def trouble(self) -> Exception | None:
        """Why the last `AGAIN` rounds failed, None if they did not all fail or a round does not end."""
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
            except Exception as error:  # noqa: BLE001  # Nothing would restart this task.
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
    """Returns a description of an error. Messages of redis-py are replaced: they name the server's address."""
    if isinstance(error, CacheError):
        return str(error)
    return f"Redis {said(error)}" if isinstance(error, RedisError | OSError | TimeoutError) else repr(error)
