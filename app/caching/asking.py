"""Asks Redis, and says whether the answer counts: only one that began and ended in the same trust does.

What can go wrong: `CacheUnavailable`, when Redis does not answer, or may not be believed.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from .breaker import Breaker
from .errors import REDIS_DOWN, CacheUnavailable
from .words import unavailable

T = TypeVar("T")


class Asking:
    """The questions of one region, `name`. `failed` is told of each that Redis did not answer."""

    def __init__(self, name: str, breaker: Breaker, failed: Callable[[], None]) -> None:
        self._name, self._breaker, self._failed = name, breaker, failed

    async def ask(self, call: Callable[[], Awaitable[T]], *, believed: bool = True) -> T:
        """What Redis answers. `believed` says that the answer counts only if Redis may be believed; else it is enough
        that it answers: a relay has to get through before it can close the breaker."""
        losses = self._breaker.losses
        if self._breaker.is_open if believed else not self._breaker.writable:
            raise CacheUnavailable(f"Redis is not asked for {self._name}: {self._breaker.why}.")
        try:
            answer = await call()
        except REDIS_DOWN as error:
            self._breaker.failed(error)
            self._failed()
            raise unavailable(error, self._name) from error
        self._breaker.answered()
        if believed and losses != self._breaker.losses:
            # It went out on a connection to a Redis that had just restarted, which another connection had found out.
            raise CacheUnavailable(f"Redis is not believed for {self._name}: {self._breaker.why}.")
        return answer

    async def tell(self, call: Callable[[], Awaitable[None]]) -> None:
        """Tells Redis something that counts only while this Redis is believed, before and after:

        A believes R1, and tells it             B finds R2 to be the one, fills it with the old value, and is believed
        R1 has answered; A must not answer, for nobody asks R1 any more
        """
        losses, life = self._breaker.losses, self._breaker.life
        if not self._breaker.is_open:
            await self._breaker.believed()
        await call()
        await self._breaker.believed()
        if losses != self._breaker.losses or life != self._breaker.life:
            raise CacheUnavailable(f"Redis is not believed for {self._name}: {self._breaker.why}.")
