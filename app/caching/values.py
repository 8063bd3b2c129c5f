"""The calls to Redis of one region: its values, leases and floors in one Redis (`region.py` has the rules).

    read     a GET for all keys of a tick; a miss looks up, which may grant the lease of its load
    write    a fill under a lease, a revocation, an invalidation: one script call for all keys of a tick

What can go wrong: `CacheUnavailable` if Redis does not answer or may not be believed. Leases that a lost answer may
have granted are given back.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import chain
from typing import Generic, TypeVar, cast

from .asking import Asking
from .background import Background
from .batching import LARGEST, Batching
from .cache import Cache
from .errors import CacheError, CacheUnavailable, NotInvalidated
from .lease import LEASE, Fill, K, Loaded
from .lifetimes import Lifetimes, ms
from .lookup import Lookup
from .observing import Event
from .reading import Outcome, Reading, V
from .scripts import script
from .stamp import Stamp, checked

A = TypeVar("A")
R = TypeVar("R")

FLOOR = timedelta(seconds=10)
"""Lifetime of a floor. It exceeds `LEASE`, so a load from a lagging replica that begins just after an invalidation
meets its floor, and a repetition of the invalidation does nothing. (A load that began before has lost its lease.) A
longer one would keep a row uncached that was deleted and created again with a lower version."""


class Values(Generic[K, V]):
    """The values of one region in one Redis. `report` is called with its events. Calls run in `background`."""

    def __init__(
        self,
        cache: Cache,
        prefix: str,
        name: str,
        type_: type[V],
        lifetimes: Lifetimes,
        report: Callable[[Event], None],
        background: Background,
    ) -> None:
        redis, self._cache = cache.redis, cache
        self.trust, self.identity, self._clock = cache.trust, cache.identity, cache.clock
        self._redis, self._renewal = redis, cache.renewal
        self._name, self._prefix, self._lifetimes = name, prefix, lifetimes
        self._report, self._background = report, background
        self._stamp = Stamp(type_, cache.identity)
        self._asking = Asking(cache, name, lambda: report(Event.UNAVAILABLE))
        self._ask = self._asking.ask
        self._fill, self._invalidate = script(redis, "fill"), script(redis, "invalidate")
        self._release, self._revoke = script(redis, "release"), script(redis, "revoke")
        self._lookup = Lookup(cache, self._asking, name=self.name, stamp=self._stamp, lost=self.give_back)
        self.look_up = self._lookup.look_up

    def name(self, key: K) -> str:
        """Returns the name of a value. The braces are a hash tag, as a cluster needs it for the names of one key."""
        return f"{self._prefix}:{{{key}}}"

    def names(self, key: K) -> tuple[str, str, str]:
        """Returns the names of a value, of its lease and of its floor."""
        name = self.name(key)
        return name, name + ":lease", name + ":floor"

    def batching(
        self,
        call: Callable[[Sequence[A]], Awaitable[Sequence[R | CacheError]]],
        told: Callable[[Sequence[R], Sequence[int]], None] = lambda results, callers: None,
    ) -> Batching[A, R]:
        """Combines the calls made in one tick of the event loop."""
        return Batching(call, self._background.start, told)

    def losses(self, key: K) -> object:
        """Returns a mark that changes when the trust in the Redis of this key is lost."""
        return self.trust.losses

    def place(self, key: K) -> Cache | None:
        """Returns the cache that has this key."""
        return self._cache

    async def get_all(self, keys: Sequence[K]) -> Sequence[Reading[V] | None]:
        """Returns the fresh values under some keys, with one MGET."""
        verified = self.trust.verified
        # A bare command: redis-py's `mget` takes longer to prepare than a header takes to read.
        call = cast("Callable[..., Awaitable[Sequence[bytes | None]]]", self._redis.execute_command)
        found = await self._ask(lambda: call("MGET", *map(self.name, keys)))
        word, now = self._stamp.word, self._clock.now()
        readings: list[Reading[V] | None] = []
        for raw in found:
            reading = None if raw is None else self._stamp.read(raw, Outcome.HIT, verified, word, now)
            if reading is None and raw is not None:
                self._report(Event.FOREIGN)
            readings.append(None if reading is None or reading.ttl_ms <= 0 else reading)
        return readings

    async def get_lists(self, lists: Sequence[Sequence[K]]) -> Sequence[Sequence[Reading[V] | None]]:
        """Returns the fresh values under each list of keys."""
        keys = list(dict.fromkeys(chain.from_iterable(lists)))
        slices = [keys[start : start + LARGEST] for start in range(0, len(keys), LARGEST)]
        found = dict(zip(keys, [reading for some in slices for reading in await self.get_all(some)], strict=True))
        return [[found[key] for key in some] for some in lists]

    async def claim(self, key: K, token: str) -> bool:
        """Takes the lease of a key, if it is free, and returns whether it was."""
        lease = self.name(key) + ":lease"
        try:
            return bool(await self._ask(lambda: self._redis.set(lease, token, nx=True, px=ms(LEASE))))
        except CacheUnavailable:
            self.give_back([key], token)  # As after a lookup: perhaps only the answer was lost.
            raise

    async def revoke(self, key: K, token: str) -> None:
        """Removes a value, and takes over its lease."""
        await self._ask(lambda: self._revoke(keys=self.names(key)[:2], args=[token, ms(LEASE)]))

    def give_back(self, keys: Sequence[K], token: str) -> None:
        """Releases leases in the background."""
        self._background.start(self.release(keys, token))

    async def release(self, keys: Sequence[K], token: str) -> None:
        """Releases the leases that have this token. Never raises: leases end by themselves."""
        with suppress(CacheUnavailable):  # The failure was counted.
            names = [self.name(key) + ":lease" for key in keys]
            await self._ask(lambda: self._release(keys=names, args=[token]), believed=False)

    async def fill_all(self, fills: Sequence[Loaded[K]]) -> Sequence[Fill]:
        """Caches loaded rows, each under its lease."""
        keys = [name for fill in fills for name in self.names(fill.key)]
        args: list[bytes | str | int] = [self._stamp.word, self._stamp.life_word]
        for fill in fills:
            args += entry(fill, self._lifetimes)
        return [Fill(answer.decode()) for answer in await self._ask(lambda: self._fill(keys=keys, args=args))]

    async def invalidate_all(self, changes: Sequence[tuple[K, int]]) -> Sequence[None]:
        """Removes each value that is not of its committed version. It may be sent to a Redis that is not believed: a
        relay must get through before it can grant trust."""
        keys = [name for key, _version in changes for name in self.names(key)]
        args = [ms(FLOOR), self._stamp.life_word, *(version for _key, version in changes)]
        await self._ask(lambda: self._invalidate(keys=keys, args=args), believed=False)
        return [None] * len(changes)

    async def tell(self, key: K, call: Callable[[], Awaitable[None]]) -> None:
        """Makes a call about `key`, which counts only if the same Redis is believed before and after it."""
        await self._asking.tell(call)

    def sure(self, key: K, losses: object) -> bool:
        """Returns True: where another Redis was believed since a revocation, the epoch has changed, and the commit has
        failed."""
        return True

    def owe(self, key: K, version: int, invalidate: Callable[[], Awaitable[None]]) -> NotInvalidated:
        """Records a failed invalidation, which is retried where no relay is. Returns the exception to raise."""
        assert self._renewal is not None  # As the region checks when it is made.
        return self._renewal.owe(self._name, key, version, invalidate)


def entry(fill: Loaded[K], lifetimes: Lifetimes) -> list[bytes | str | int]:
    """Returns what fill.lua has to know of a loaded row."""
    fresh, keep = lifetimes.of_entry(row=fill.version > 0)
    return [fill.token, fill.version, ms(fill.cost), ms(fresh), ms(keep), checked(fill.payload)]
