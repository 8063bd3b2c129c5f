"""The values of one kind under one name in Redis, and the rules that keep them true.

    orders:{42}         "<schema> <version> <stored at> <fresh for> <load cost> <CRC-32> <JSON>", times in Redis' ms
    orders:{42}:lease   the token of the reader or writer that holds the lease
    orders:{42}:floor   "<life> <version>", the newest version known to be invalidated

The braces are a hash tag: in a cluster, the three keys of a value share a slot, so one script can use them. `stamp.py`
decides by the first word of a value whether to believe it. The absence of a row is cached too, as version 0 without
JSON, for a short time. Any invalidation removes it.

What can go wrong: nearly every method raises `CacheUnavailable` if Redis does not answer or may not be believed
(`trust.py`). A fill then counts as refused, and an invalidation waits until nobody believes the old value.
"""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import chain
from typing import Generic, cast

from .asking import Asking
from .background import Background
from .batching import LARGEST, Batching
from .cache import Cache
from .errors import CacheUnavailable
from .lease import LEASE, Fill, K, Lease, Loaded, whole
from .lifetimes import DEFAULT, Lifetimes, ms
from .lookup import Lookup
from .observing import Event, Observe
from .reading import Outcome, Reading, V
from .scripts import script
from .stamp import Stamp, checked

FLOOR = timedelta(seconds=10)
"""Lifetime of a floor. It exceeds `LEASE`, so a load from a lagging replica that begins just after an invalidation
meets its floor, and a repetition of the invalidation does nothing. (A load that began before has lost its lease.) A
longer one would keep a row uncached that was deleted and created again with a lower version."""
NO_TIME = timedelta(0)


class Region(Background, Generic[K, V]):
    """The values of one type under one name, with their leases and floors. Use it within `async with`: the end waits
    for loads in flight, so both stores can be closed after it."""

    def __init__(
        self,
        cache: Cache,
        name: str,
        type_: type[V],
        *,
        lifetimes: Lifetimes = DEFAULT,
        settled: Callable[[K], Awaitable[None]] | None = None,
        observe: Observe | None = None,
    ) -> None:
        """`settled` belongs to a relay. It returns once all committed changes of a key are invalidated in Redis, or
        Redis is no longer believed. Raises TypeError for a type without a version."""
        super().__init__()
        redis = cache.redis
        if settled is None and cache.renewal is None:
            raise TypeError(f"The cache of {name} is relayed: name `settled`, or open it without `relayed`.")
        self._redis, self._name, self._type, self._clock = redis, name, type_, cache.clock
        self._observe, self._prefix = observe or cache.observe, cache.claim(name, "values")
        self._settled, self._renewal, self._lifetimes = settled, cache.renewal, lifetimes
        self.trust, self.bulkhead, self._identity = cache.trust, cache.bulkhead, cache.identity
        self._stamp = Stamp(type_, cache.identity)
        self._asking = Asking(cache, name, lambda: self.report(Event.UNAVAILABLE))
        self._ask = self._asking.ask
        self._fill, self._invalidate = script(redis, "fill"), script(redis, "invalidate")
        self._release, self._revoke = script(redis, "release"), script(redis, "revoke")
        self._gets = Batching(self._get_all, self.start, self._count_hits)
        # One future for each list: one for each of its keys would cost more than finding them.
        self._lists = Batching(self._get_lists, self.start)
        self._lookup = Lookup(cache, self._asking, name=self._key, stamp=self._stamp, lost=self._give_back)
        self._lookups: Batching[K, Reading[V] | Lease[V]] = Batching(self._lookup.look_up, self.start)
        self._fills = Batching(self._fill_all, self.start)
        self._invalidations = Batching(self._invalidate_all, self.start)

    def find(self, key: K) -> Awaitable[Reading[V] | None]:
        """Returns the fresh value under `key`, None if there is none: one GET."""
        # Not a coroutine: one for each reader, with its counting, would take a quarter of a hit's time.
        return self._gets.ask_here(key) if self.trust.held else self._find_later(key)

    async def find_all(self, keys: Sequence[K]) -> list[Reading[V] | None]:
        """Returns the fresh values of many keys, in their order: one MGET."""
        if not self.trust.held:
            await self.trust.believed()
        found = await self._lists.ask(tuple(keys))
        self._count_hits(found, [1] * len(found))
        return list(found)

    async def lookup(self, key: K) -> Reading[V] | Lease[V]:
        """Returns the value, or the lease of its load. All calls in one tick share one answer, and a granted lease. It
        does not ask for trust again: `find` did after the read began, which must see only what was answered before.
        """
        return await self._lookups.ask(key)

    async def claim(self, key: K) -> str | None:
        """Returns a lease for reloading a value that is still cached, None if the lease is taken.

        The value may only be replaced under a lease, even by a refresh:

            R loads the old row, to refresh it
                                                W commits the new row, invalidates (the lease is void), and answers
            R would set the old row
        """
        token = secrets.token_hex(8)
        lease = self._key(key) + ":lease"
        try:
            granted = await self._ask(lambda: self._redis.set(lease, token, nx=True, px=ms(LEASE)))
        except CacheUnavailable:
            self._give_back([key], token)  # As after a lookup: perhaps only the answer was lost.
            raise
        return token if granted else None

    async def fill(
        self, key: K, token: str, value: V | None, cost: timedelta = timedelta(0), losses: int | None = None
    ) -> tuple[Reading[V], Fill]:
        """Caches a row under the lease `token`, and returns it as a reading. `cost` is how long its load took. The row
        is not cached if trust was lost since `losses` was read:

            R loads a row, and stalls           the database is restored to an earlier time: another epoch begins
            R would cache the lost row in the new epoch

        Nor is it cached if the row was read in another epoch than the present one:

            the database is restored, and W's change gets the version of a lost change
            R loads it before the relay has detected the restore; R would cache it as the lost change, with its tag
        """
        reading = self.unkept(value, Outcome.MISS)
        try:
            if losses not in (None, self.trust.losses):
                raise CacheUnavailable(f"Trust was lost during a load of {self._name}.")
            if value is not None and self._identity.epoch is not None and self._epoch_of(value) != self._identity.epoch:
                raise CacheUnavailable(f"A row of {self._name} was read in another epoch.")
            fill = await self._fills.ask(Loaded(key, token, reading.version, reading.payload or b"", cost))
        except CacheUnavailable:
            fill = Fill.UNKNOWN
            # Perhaps the fill never arrived. Then the next reader would wait until the lease ends.
            self._give_back([key], token)
        self.report(Event.STORED if fill is Fill.STORED else Event.REFUSED)
        return reading._replace(stored=fill is Fill.STORED), fill

    async def revoke(self, key: K, token: str) -> None:
        """Removes the value, and takes over its lease, for a writer that is about to commit. Raises CacheUnavailable,
        also if Redis did so but is no longer believed."""
        await self._ask(lambda: self._revoke(keys=self._names(key)[:2], args=[token, ms(LEASE)]))

    async def release(self, key: K, token: str) -> None:
        """Releases the lease of a failed load. Never raises: the lease ends by itself."""
        await self._release_all([key], token)

    async def invalidate(self, key: K, version: int) -> None:
        """Removes a value that is not of the committed `version`, and voids the load in flight. If Redis cannot be
        reached, and there is a relay, it returns once nobody reads the old value as a verified one:

            A commits, cannot reach Redis, and would answer at once
                                                R on B, which reaches Redis, would start then and hit the old value

        Without a relay, it then raises NotInvalidated, and the invalidation is retried in the background. Raises
        TypeError for a version that is not an int.
        """
        try:
            await self._asking.tell(lambda: self.try_invalidate(key, version))
        except CacheUnavailable as error:
            self.report(Event.INVALIDATION_FAILED)
            if self._settled is None:
                assert self._renewal is not None  # As checked in the constructor.
                raise self._renewal.owe(self._name, key, version, lambda: self.try_invalidate(key, version)) from error
            await self._settled(key)

    async def try_invalidate(self, key: K, version: int) -> None:
        """Invalidates once, for a caller that retries, such as a relay. Raises CacheUnavailable."""
        await self._invalidations.ask((key, whole(version)))
        self.report(Event.INVALIDATED)

    def unkept(self, value: V | None, outcome: Outcome) -> Reading[V]:
        """Returns a reading of a database row that is not cached."""
        if value is None:
            return Reading(None, 0, outcome, self._type)
        # A process that is in no epoch, or by now in another one, does not know which row this version names.
        epoch = self._epoch_of(value)
        if epoch != self._identity.epoch or self._identity.refused is not None:
            epoch = None
        return Reading(value.model_dump_json().encode(), value.version, outcome, self._type, epoch=epoch)

    def report(self, event: Event, took: timedelta = NO_TIME) -> None:
        """Reports an event to the region's `observe` callback."""
        self._observe(self._name, event, took, 1)

    def _epoch_of(self, value: V) -> str | None:
        return cast("str | None", getattr(value, "epoch", self._identity.epoch))

    def _key(self, key: K) -> str:
        return f"{self._prefix}:{{{key}}}"

    async def _find_later(self, key: K) -> Reading[V] | None:
        await self.trust.believed()
        return await self._gets.ask_here(key)

    def _count_hits(self, found: Sequence[Reading[V] | None], readers: Sequence[int]) -> None:
        hits = sum(times for reading, times in zip(found, readers, strict=True) if reading is not None)
        if hits:
            self._observe(self._name, Event.HIT, NO_TIME, hits)

    async def _get_all(self, keys: Sequence[K]) -> Sequence[Reading[V] | None]:
        verified = self.trust.verified
        # A bare command: redis-py's `mget` takes longer to prepare than a header takes to read.
        call = cast("Callable[..., Awaitable[Sequence[bytes | None]]]", self._redis.execute_command)
        found = await self._ask(lambda: call("MGET", *map(self._key, keys)))
        word, now = self._stamp.word, self._clock.now()
        readings: list[Reading[V] | None] = []
        for raw in found:
            reading = None if raw is None else self._stamp.read(raw, Outcome.HIT, verified, word, now)
            if reading is None and raw is not None:
                self.report(Event.FOREIGN)
            readings.append(None if reading is None or reading.ttl_ms <= 0 else reading)
        return readings

    async def _get_lists(self, lists: Sequence[Sequence[K]]) -> Sequence[Sequence[Reading[V] | None]]:
        keys = list(dict.fromkeys(chain.from_iterable(lists)))
        slices = [keys[start : start + LARGEST] for start in range(0, len(keys), LARGEST)]
        found = dict(zip(keys, [reading for some in slices for reading in await self._get_all(some)], strict=True))
        return [[found[key] for key in some] for some in lists]

    def _give_back(self, keys: Sequence[K], token: str) -> None:
        self.start(self._release_all(keys, token))

    async def _release_all(self, keys: Sequence[K], token: str) -> None:
        with suppress(CacheUnavailable):  # The failure was counted, and the leases end by themselves.
            names = [self._key(key) + ":lease" for key in keys]
            await self._ask(lambda: self._release(keys=names, args=[token]), believed=False)

    async def _fill_all(self, fills: Sequence[Loaded[K]]) -> Sequence[Fill]:
        keys = [name for fill in fills for name in self._names(fill.key)]
        args: list[bytes | str | int] = [self._stamp.word, self._stamp.life_word]
        for fill in fills:
            fresh, keep = self._lifetimes.of_entry(row=fill.version > 0)
            args += [fill.token, fill.version, ms(fill.cost), ms(fresh), ms(keep), checked(fill.payload)]
        return [Fill(answer.decode()) for answer in await self._ask(lambda: self._fill(keys=keys, args=args))]

    async def _invalidate_all(self, changes: Sequence[tuple[K, int]]) -> Sequence[None]:
        keys = [name for key, _version in changes for name in self._names(key)]
        args = [ms(FLOOR), self._stamp.life_word, *(version for _key, version in changes)]
        await self._ask(lambda: self._invalidate(keys=keys, args=args), believed=False)
        return [None] * len(changes)

    def _names(self, key: K) -> tuple[str, str, str]:
        name = self._key(key)
        return name, name + ":lease", name + ":floor"
