"""Asks Redis, and decides whether the answer counts: it does not if trust was lost between question and answer.

What can go wrong: `CacheUnavailable` if Redis does not answer or may not be believed.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from .cache import Cache
from .errors import REDIS_DOWN, CacheUnavailable, NotAsked
from .words import unavailable

T = TypeVar("T")


class Asking:
    """The calls to Redis of one region, `name`. `failed` is called for each call that Redis did not answer."""

    def __init__(self, cache: Cache, name: str, failed: Callable[[], None]) -> None:
        self._cache, self._trust, self._breaker = cache, cache.trust, cache.breaker
        self._name, self._failed = name, failed

    async def ask(self, call: Callable[[], Awaitable[T]], *, believed: bool = True, drains: bool = False) -> T:
        """Returns what Redis answers. With `believed`, the answer counts only if Redis may be believed. Without it, any
        answer counts: a relay must get through before it can grant trust. Then, with `drains`, a Redis is also asked
        that may not be written to."""
        losses = self._trust.losses
        asked = self._cache.breaker.reachable if drains else self._cache.writable
        if self._trust.lost if believed else not asked:
            raise NotAsked(f"Redis is not asked for {self._name}: {self._trust.why}.")
        try:
            answer = await call()
        except REDIS_DOWN as error:
            self._breaker.failed(error)
            self._failed()
            raise unavailable(error, self._name) from error
        self._breaker.answered()
        if believed and losses != self._trust.losses:
            # The call went to a Redis that had just restarted, as another connection detected meanwhile.
            raise CacheUnavailable(f"Redis is not believed for {self._name}: {self._trust.why}.")
        return answer

    async def tell(self, call: Callable[[], Awaitable[None]]) -> None:
        """Makes a call that counts only if the same Redis is believed before and after it:

        A believes X, and invalidates there     B finds that Y is the one, fills it with the old value, and believes it
        X has answered; A must not answer, because no reader asks X any more
        """
        losses, life = self._trust.losses, self._cache.identity.life
        if not self._trust.lost:
            await self._trust.believed()
        await call()
        await self._trust.believed()
        if losses != self._trust.losses or life != self._cache.identity.life:
            raise CacheUnavailable(f"Redis is not believed for {self._name}: {self._trust.why}.")
