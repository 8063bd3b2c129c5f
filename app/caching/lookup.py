"""Looks keys up in one script call: each is a value, or a lease, ours or somebody else's, on loading it.

What can go wrong: `CacheUnavailable`. Leases that were granted by an answer which got lost are given back.
"""

import secrets
from collections.abc import Callable, Sequence
from typing import Generic

from redis.asyncio import Redis

from .asking import Asking
from .breaker import Breaker
from .clock import RedisClock
from .errors import CacheUnavailable
from .lease import LEASE, K, Lease
from .lifetimes import ms
from .reading import Outcome, Reading, V
from .scripts import script
from .stamp import Stamp


class Lookup(Generic[K, V]):
    """The lookups of one region. `name` is the key of a value in Redis, and `lost` is told of leases that may have been
    granted by a lost answer: on which keys, under which token."""

    def __init__(
        self,
        redis: Redis,
        asking: Asking,
        *,
        name: Callable[[K], str],
        stamp: Stamp[V],
        clock: RedisClock,
        breaker: Breaker,
        lost: Callable[[Sequence[K], str], None],
    ) -> None:
        self._redis, self._name, self._stamp, self._lost = redis, name, stamp, lost
        self._ask, self._clock, self._breaker = asking.ask, clock, breaker
        self._script = script(redis, "lookup")

    async def look_up(self, keys: Sequence[K]) -> Sequence[Reading[V] | Lease[V]]:
        """The value of each key, or who loads it. Raises CacheUnavailable."""
        token, verified = secrets.token_hex(8), self._breaker.verified
        named = [name for key in keys for name in (self._name(key), self._name(key) + ":lease")]
        args = [token, self._stamp.word, ms(LEASE)]
        try:
            now, *answers = await self._ask(lambda: self._script(keys=named, args=args))
        except CacheUnavailable:
            # Perhaps only the answer is lost, and nobody knows of the leases that it granted.
            self._lost(keys, token)
            raise
        self._clock.set(now)
        readings = [self._answer(verified, *answer) for answer in answers]
        rotten = [key for key, reading in zip(keys, readings, strict=True) if reading is None]
        if not rotten:
            return [reading for reading in readings if reading is not None]
        # The script knows no checksums, and took it for a value. What is gone is a miss, and no harm is done.
        await self._ask(lambda: self._redis.delete(*map(self._name, rotten)))
        again = iter(await self.look_up(rotten))
        return [reading or next(again) for reading in readings]

    def _answer(
        self, verified: bool, kind: bytes, what: bytes, old: bytes | None = None
    ) -> Reading[V] | Lease[V] | None:
        word, now = self._stamp.word, self._clock.now()
        if kind == b"entry":
            return self._stamp.read(what, Outcome.HIT, verified, word, now)
        stale = None if old is None else self._stamp.read(old, Outcome.STALE, verified, word, now)
        # A token that is no text is somebody else's, and all the same in the way of who asks for this key.
        return Lease(what.decode(errors="backslashreplace"), kind == b"lease", stale)
