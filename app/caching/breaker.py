"""Detects that Redis does not answer, and that it answers again.

    reachable      Redis answers
    unreachable    some calls in a row have failed, or a probe has: trust is lost (`trust.py`), and calls fail without
                   being sent

A probe that is answered makes Redis reachable again. It does not restore trust: that Redis answers does not say what it
knows. The breaker of logs and metrics is open while trust is lost, for this reason or another, and closes when trust is
granted.

(Nygard, "Release It!".)

What can go wrong: Redis answers probes, and is too slow for other calls. Then trust is lost again and again.
"""

import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from .errors import REDIS_DOWN
from .trust import Trust
from .words import said, unavailable

T = TypeVar("T")

FAILURES, FAILING = 3, timedelta(milliseconds=100)
"""How many calls must fail, and for how long, without a success in between, before Redis is unreachable. A few
connections may break at one moment although Redis still answers."""


class Breaker:
    """Whether Redis answers this process. It starts unreachable: a probe has to be answered. `trust` is lost when Redis
    becomes unreachable."""

    def __init__(self, trust: Trust) -> None:
        self.reachable = False
        """Whether Redis answers."""
        self.served = False
        """Whether Redis has ever answered this process correctly."""
        self._trust = trust
        self._failures = 0
        self._failing_since = 0.0

    async def probe(self, redis: Redis, ask: Callable[[], Awaitable[T]]) -> T:
        """Returns what Redis answers to `ask`. If it does not answer, trust is lost. Raises CacheUnavailable."""
        if self._trust.lost:
            # Older connections may lead to a Redis that was replaced meanwhile, or nowhere.
            await redis.connection_pool.disconnect(inuse_connections=False)
        try:
            answer = await ask()
        except REDIS_DOWN:
            # Only this one connection may have been broken.
            try:
                answer = await ask()
            except REDIS_DOWN as error:
                self._open(error)
                raise unavailable(error) from error
        self.reachable = self.served = True
        self._failures = 0
        return answer

    def answered(self) -> None:
        """Records that a call to Redis succeeded."""
        self._failures = 0

    def failed(self, error: Exception) -> None:
        """Records that a call to Redis failed. An error reply of Redis itself is no reason to stop asking it."""
        if isinstance(error, ResponseError):
            return
        now = time.monotonic()
        if not self._failures:
            self._failing_since = now
        self._failures += 1
        lasts = now - self._failing_since >= FAILING.total_seconds()
        if self._failures >= FAILURES and lasts and not self._trust.lost:
            self._open(error)

    def _open(self, error: BaseException) -> None:
        self.reachable = False
        self._trust.lose(f"it {said(error)}")
