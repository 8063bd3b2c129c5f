"""The values of one kind under one name in Redis, and the rules that keep them true.

    orders:{42}         "<schema> <version> <stored at> <fresh for> <load cost> <CRC-32> <JSON>", times in Redis' ms
    orders:{42}:lease   the token of whoever may load it now
    orders:{42}:floor   "<life> <version>", the newest version known to be invalidated

The braces are a hash tag: in a cluster the three keys of a value share a slot, and so a script. By the first word of a
value `stamp.py` tells whether it may be believed.

A row that does not exist is kept too, as version 0 without JSON, for a short time; any invalidation removes it.

What can go wrong: `CacheUnavailable`, from nearly every method, when Redis does not answer, or may not be believed
(`Breaker`). A fill then counts as refused, and an invalidation waits until nobody believes the old value.
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
"""A floor outlives a lease, so that whoever fills has also met the floor. A longer one would keep a row uncached that
was deleted and created again with a lower version."""
NO_TIME = timedelta(0)


class Region(Background, Generic[K, V]):
    """The values of one type under one name, with their leases and floors.

    Use it within `async with`: at its end it waits for loads under way, so that both stores can be closed after it.
    """

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
        """`settled` belongs to a relay: it returns when Redis was told of all committed changes of a key, or is not
        believed any more. Raises TypeError for a type that has no version."""
        super().__init__()
        redis, clock, breaker = cache.redis, cache.clock, cache.breaker
        if settled is None and cache.renewal is None:
            raise TypeError(f"The cache of {name} is relayed: name `settled`, or open it without `relayed`.")
        self._redis, self._name, self._type, self._clock = redis, name, type_, clock
        self._observe, self._prefix = observe or cache.observe, cache.claim(name, "values")
        self._settled, self._renewal, self._lifetimes = settled, cache.renewal, lifetimes
        self._stamp, self._asking = Stamp(type_, breaker), Asking(name, breaker, lambda: self.report(Event.UNAVAILABLE))
        self.breaker, self.bulkhead, self._ask = breaker, cache.bulkhead, self._asking.ask
        self._fill, self._invalidate = script(redis, "fill"), script(redis, "invalidate")
        self._release, self._revoke = script(redis, "release"), script(redis, "revoke")
        self._gets = Batching(self._get_all, self.start, self._count_hits)
        # A future for each list, and not for each of its keys: that would cost more than to find them.
        self._lists = Batching(self._get_lists, self.start)
        self._lookup = Lookup(
            redis, self._asking, name=self._key, stamp=self._stamp, clock=clock, breaker=breaker, lost=self._give_back
        )
        self._lookups: Batching[K, Reading[V] | Lease[V]] = Batching(self._lookup.look_up, self.start)
        self._fills = Batching(self._fill_all, self.start)
        self._invalidations = Batching(self._invalidate_all, self.start)

    def find(self, key: K) -> Awaitable[Reading[V] | None]:
        """The fresh value under `key`, None when there is none: one GET."""
        # No coroutine: with its counting, one for each reader would take a quarter of a hit's time.
        return self._gets.ask_here(key) if self.breaker.closed else self._find_later(key)

    async def find_all(self, keys: Sequence[K]) -> list[Reading[V] | None]:
        """The same for many keys, in their order: one MGET."""
        if not self.breaker.closed:
            await self.breaker.believed()
        found = await self._lists.ask(tuple(keys))
        self._count_hits(found, [1] * len(found))
        return list(found)

    async def lookup(self, key: K) -> Reading[V] | Lease[V]:
        """The value, or who loads it. All that ask in one tick get one answer, and so share a lease that it grants."""
        return await self._lookups.ask(key)

    async def claim(self, key: K) -> str | None:
        """A lease on a value that still stands, to load it anew; None when somebody has it already.

        The value may only be replaced under a lease, even where nothing else is asked of it:

            R loads the old row, to refresh it
                                                W commits the new row, invalidates (the lease is void), and answers
            R would set the old row
        """
        token = secrets.token_hex(8)
        lease = self._key(key) + ":lease"
        try:
            granted = await self._ask(lambda: self._redis.set(lease, token, nx=True, px=ms(LEASE)))
        except CacheUnavailable:
            self._give_back([key], token)  # As after a lookup: perhaps only the answer is lost.
            raise
        return token if granted else None

    async def fill(
        self, key: K, token: str, value: V | None, cost: timedelta = timedelta(0), losses: int | None = None
    ) -> tuple[Reading[V], Fill]:
        """Keeps a row under the lease `token`, and answers it as a reading. `cost` is what its load took. It is not
        kept, if trust was lost since the breaker had counted so many `losses`:

            R loads a row, and stalls           the database is restored to an earlier time: another epoch begins
            R would keep the lost row in it

        Nor if the row itself was read in another epoch than this:

            the database is restored, and W's change gets the version of a lost one
            R loads it, before the relay has found that out; R would keep it as what was lost, under the same tag
        """
        reading = self.unkept(value, Outcome.MISS)
        try:
            if losses not in (None, self.breaker.losses):
                raise CacheUnavailable(f"Trust was lost while {self._name} was asked for.")
            if value is not None and self.breaker.epoch is not None and self._epoch_of(value) != self.breaker.epoch:
                raise CacheUnavailable(f"A row of {self._name} was read in another epoch.")
            fill = await self._fills.ask(Loaded(key, token, reading.version, reading.payload or b"", cost))
        except CacheUnavailable:
            fill = Fill.UNKNOWN
            # Perhaps it never arrived, and the next reader would wait until the lease ends.
            self._give_back([key], token)
        self.report(Event.STORED if fill is Fill.STORED else Event.REFUSED)
        return reading._replace(stored=fill is Fill.STORED), fill

    async def revoke(self, key: K, token: str) -> None:
        """Takes the value and its lease away for a writer, who is about to commit. Raises CacheUnavailable, also when
        Redis was told and is not believed any more."""
        await self._ask(lambda: self._revoke(keys=self._names(key)[:2], args=[token, ms(LEASE)]))

    async def release(self, key: K, token: str) -> None:
        """Gives back the lease of a load that failed. Never raises: the lease ends by itself."""
        await self._release_all([key], token)

    async def invalidate(self, key: K, version: int) -> None:
        """Forgets what is not of `version`, which the database has committed, and voids the load under way.

        Where a relay runs, it never raises. When Redis cannot be told, it returns when nobody reads the old value:

            A commits, and cannot reach Redis; answered at once,
                                                R on B, who can, would start after that, and hit the old value

        Without a relay it raises NotInvalidated then, and Redis is told again in the background.
        """
        try:
            await self._asking.tell(lambda: self.try_invalidate(key, version))
        except CacheUnavailable as error:
            self.report(Event.INVALIDATION_FAILED)
            if self._settled is None:
                assert self._renewal is not None  # As looked for at the beginning.
                raise self._renewal.owe(self._name, key, version, lambda: self.try_invalidate(key, version)) from error
            await self._settled(key)

    async def try_invalidate(self, key: K, version: int) -> None:
        """As `invalidate`, for a relay, which can try again: raises CacheUnavailable."""
        await self._invalidations.ask((key, whole(version)))
        self.report(Event.INVALIDATED)

    def unkept(self, value: V | None, outcome: Outcome) -> Reading[V]:
        """A reading of what the database answered, and the cache does not keep."""
        if value is None:
            return Reading(None, 0, outcome, self._type)
        # Whoever is a member of no epoch, or of another one by now, does not know what this version names.
        epoch = self._epoch_of(value)
        if epoch != self.breaker.epoch or self.breaker.refused is not None:
            epoch = None
        return Reading(value.model_dump_json().encode(), value.version, outcome, self._type, epoch=epoch)

    def report(self, event: Event, took: timedelta = NO_TIME) -> None:
        """Tells the owner of this region what happened."""
        self._observe(self._name, event, took, 1)

    def _epoch_of(self, value: V) -> str | None:
        return cast("str | None", getattr(value, "epoch", self.breaker.epoch))

    def _key(self, key: K) -> str:
        return f"{self._prefix}:{{{key}}}"

    async def _find_later(self, key: K) -> Reading[V] | None:
        await self.breaker.believed()
        return await self._gets.ask_here(key)

    def _count_hits(self, found: Sequence[Reading[V] | None], readers: Sequence[int]) -> None:
        hits = sum(times for reading, times in zip(found, readers, strict=True) if reading is not None)
        if hits:
            self._observe(self._name, Event.HIT, NO_TIME, hits)

    async def _get_all(self, keys: Sequence[K]) -> Sequence[Reading[V] | None]:
        verified = self.breaker.verified
        # As a bare command: redis-py's method for it takes longer to prepare than a header to be read.
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
        with suppress(CacheUnavailable):  # It was counted, and the leases end by themselves.
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
