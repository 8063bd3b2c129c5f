"""Looks up keys in one script call. The answer for each is a value, or a lease on its load, ours or another reader's.

What can go wrong: `CacheUnavailable`. Leases that a lost answer may have granted are given back.
"""

import secrets
from collections.abc import Callable, Sequence
from typing import Generic

from .asking import Asking
from .cache import Cache
from .clock import RedisClock
from .errors import CacheUnavailable
from .lease import LEASE, K, Lease
from .lifetimes import ms
from .reading import Outcome, Reading, V
from .scripts import script
from .stamp import Stamp


class Lookup(Generic[K, V]):
    """The lookups of one region. `name` returns the name of a value in Redis. `lost` is called with the keys and the
    token of leases that a lost answer may have granted."""

    def __init__(
        self,
        cache: Cache,
        asking: Asking,
        *,
        name: Callable[[K], str],
        stamp: Stamp[V],
        lost: Callable[[Sequence[K], str], None],
    ) -> None:
        self._redis, self._clock, self._trust = cache.redis, cache.clock, cache.trust
        self._ask, self._name, self._stamp, self._lost = asking.ask, name, stamp, lost
        self._script = script(cache.redis, "lookup")

    async def look_up(self, keys: Sequence[K]) -> Sequence[Reading[V] | Lease[V]]:
        """Returns the value of each key, or the lease of its load. Raises CacheUnavailable."""
        token, verified = secrets.token_hex(8), self._trust.verified
        named = [name for key in keys for name in (self._name(key), self._name(key) + ":lease")]
        args = [token, self._stamp.word, ms(LEASE)]
        try:
            now, *answers = await self._ask(lambda: self._script(keys=named, args=args))
        except CacheUnavailable:
            # Perhaps only the answer was lost, and nobody knows of the leases that it granted.
            self._lost(keys, token)
            raise
        self._clock.set(now)
        readings = [answered(self._stamp, self._clock, verified, *answer) for answer in answers]
        rotten = [key for key, reading in zip(keys, readings, strict=True) if reading is None]
        if not rotten:
            return [reading for reading in readings if reading is not None]
        # The script does not verify checksums, and returned a damaged value. Once deleted, it is an ordinary miss.
        await self._ask(lambda: self._redis.delete(*map(self._name, rotten)))
        again = iter(await self.look_up(rotten))
        return [reading or next(again) for reading in readings]


def answered(
    stamp: Stamp[V], clock: RedisClock, verified: bool, kind: bytes, what: bytes, old: bytes | None = None
) -> Reading[V] | Lease[V] | None:
    """Returns the answer to a lookup of one key as a reading or as a lease, None for a value that is damaged."""
    word, now = stamp.word, clock.now()
    if kind == b"entry":
        return stamp.read(what, Outcome.HIT, verified, word, now)
    stale = None if old is None else stamp.read(old, Outcome.STALE, verified, word, now)
    # A token that is not text was written by another program, but still blocks the readers of this key.
    return Lease(what.decode(errors="backslashreplace"), kind == b"lease", stale)
