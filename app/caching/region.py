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

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Generic, cast

from .background import Background
from .batching import Batching
from .cache import Cache
from .cluster import Cluster
from .cluster.cluster_values import ClusterValues
from .errors import CacheUnavailable
from .lease import LEASE, Fill, K, Lease, Loaded, whole
from .lifetimes import DEFAULT, Lifetimes
from .observing import Event, Observe
from .reading import Outcome, Reading, V
from .values import Values

NO_TIME = timedelta(0)


class Region(Background, Generic[K, V]):
    """The values of one type under one name, with their leases and floors. Use it within `async with`: the end waits
    for loads in flight, so both stores can be closed after it."""

    def __init__(
        self,
        cache: Cache | Cluster,
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
        if settled is None and not cache.renews:
            raise TypeError(f"The cache of {name} is relayed: name `settled`, or open it without `relayed`.")
        self._name, self._type, self._settled = name, type_, settled
        self._observe, self.bulkhead = observe or cache.observe, cache.bulkhead
        prefix = cache.claim(name, "values")
        values: Values[K, V] | ClusterValues[K, V]
        if isinstance(cache, Cluster):
            values = ClusterValues(cache, prefix, name, type_, lifetimes, self.report, self)
        else:
            values = Values(cache, prefix, name, type_, lifetimes, self.report, self)
        self._values = values
        self._trust, self._identity = values.trust, values.identity
        self._gets = values.batching(values.get_all, self._count_hits)
        # One future for each list: one for each of its keys would cost more than finding them.
        self._lists = values.batching(values.get_lists)
        self._lookups: Batching[K, Reading[V] | Lease[V]] = values.batching(values.look_up)
        self._fills = values.batching(values.fill_all)
        self._invalidations = values.batching(values.invalidate_all)

    def find(self, key: K) -> Awaitable[Reading[V] | None]:
        """Returns the fresh value under `key`, None if there is none: one GET."""
        # Not a coroutine: one for each reader, with its counting, would take a quarter of a hit's time.
        return self._gets.ask_here(key) if self._trust.held else self._find_later(key)

    async def find_all(self, keys: Sequence[K]) -> list[Reading[V] | None]:
        """Returns the fresh values of many keys, in their order: one MGET."""
        if not self._trust.held:
            await self._trust.believed()
        found = await self._lists.ask(tuple(keys))
        self._count_hits(found, [1] * len(found))
        return list(found)

    async def lookup(self, key: K) -> Reading[V] | Lease[V]:
        """Returns the value, or the lease of its load. All calls in one tick share one answer, and a granted lease. It
        does not ask for trust again: `find` did after the read began, which must see only what was answered before.

        It raises CacheUnavailable, too, if Redis takes longer to answer than a lease lasts: a primary makes scripts
        wait while it hands over to a replica.
        """
        asked = self._lookups.ask(key)
        await asyncio.wait({asked}, timeout=LEASE.total_seconds())
        if asked.done():
            return asked.result()
        asked.add_done_callback(lambda asked: self._answered_late(key, asked))
        raise CacheUnavailable(f"Redis has not answered for {self._name} within {LEASE.total_seconds():g} s.")

    async def claim(self, key: K) -> str | None:
        """Returns a lease for reloading a value that is still cached, None if the lease is taken.

        The value may only be replaced under a lease, even by a refresh:

            R loads the old row, to refresh it
                                                W commits the new row, invalidates (the lease is void), and answers
            R would set the old row
        """
        token = secrets.token_hex(8)
        return token if await self._values.claim(key, token) else None

    def losses(self, key: K) -> object:
        """Returns a mark that changes when the trust in the Redis of `key` is lost."""
        return self._values.losses(key)

    def place(self, key: K) -> Cache | None:
        """Returns the cache that has this key: the only one, or that of a node of a cluster. None if no node is known
        to have it."""
        return self._values.place(key)

    async def fill(
        self,
        key: K,
        token: str,
        value: V | None,
        cost: timedelta = NO_TIME,
        losses: object = None,
        within: timedelta = LEASE,
    ) -> tuple[Reading[V], Fill]:
        """Caches a row under the lease `token`, and returns it as a reading. `cost` is how long its load took. If Redis
        has not answered `within` this time, the reading is returned all the same:

            R loads the row                     X begins a failover: all scripts wait until it succeeds or is given up
            R's fill waits for 5 s, so that R would give up, too, although it has the row

        The row is not cached if trust was lost since `losses` was read:

            R loads a row, and stalls           the database is restored to an earlier time: another epoch begins
            R would cache the lost row in the new epoch

        Nor is it cached if the row was read in another epoch than the present one:

            the database is restored, and W's change gets the version of a lost change
            R loads it before the relay has detected the restore; R would cache it as the lost change, with its tag
        """
        reading = self.unkept(value, Outcome.MISS)
        try:
            if losses not in (None, self._values.losses(key)):
                raise CacheUnavailable(f"Trust was lost during a load of {self._name}.")
            if value is not None and self._identity.epoch is not None and self._epoch_of(value) != self._identity.epoch:
                raise CacheUnavailable(f"A row of {self._name} was read in another epoch.")
            loaded = Loaded(key, token, reading.version, reading.payload or b"", cost)
            fill = await asyncio.wait_for(self._fills.ask(loaded), max(0.0, within.total_seconds()))
        except (CacheUnavailable, TimeoutError):
            fill = Fill.UNKNOWN
            # Perhaps the fill never arrived. Then the next reader would wait until the lease ends.
            self._values.give_back([key], token)
        self.report(Event.STORED if fill is Fill.STORED else Event.REFUSED)
        return reading._replace(stored=fill is Fill.STORED), fill

    async def revoke(self, key: K, token: str) -> None:
        """Removes the value, and takes over its lease, for a writer that is about to commit. Raises CacheUnavailable,
        also if Redis did so but is no longer believed."""
        await self._values.revoke(key, token)

    async def confirm(self, key: K, losses: object) -> None:
        """Returns once nobody reads the old value of a committed change that was revoked when `losses` was read."""
        if self._settled is not None and not self._values.sure(key, losses):
            await self._settled(key)

    async def release(self, key: K, token: str) -> None:
        """Releases the lease of a failed load. Never raises: the lease ends by itself."""
        await self._values.release([key], token)

    async def invalidate(self, key: K, version: int) -> None:
        """Removes a value that is not of the committed `version`, and voids the load in flight. If Redis cannot be
        reached, and there is a relay, it returns once nobody reads the old value as a verified one:

            A commits, cannot reach Redis, and would answer at once
                                                R on B, which reaches Redis, would start then and hit the old value

        Without a relay, it then raises NotInvalidated, and the invalidation is retried in the background. Raises
        TypeError for a version that is not an int.
        """
        try:
            await self._values.tell(key, lambda: self.try_invalidate(key, version))
        except CacheUnavailable as error:
            self.report(Event.INVALIDATION_FAILED)
            if self._settled is None:
                raise self._values.owe(key, version, lambda: self.try_invalidate(key, version)) from error
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

    def _answered_late(self, key: K, asked: "asyncio.Future[Reading[V] | Lease[V]]") -> None:
        """Gives back what a lookup was granted that nobody waits for any more."""
        if asked.cancelled() or asked.exception() is not None:
            return
        if isinstance(lease := asked.result(), Lease) and lease.granted:
            self._values.give_back([key], lease.token)

    def _epoch_of(self, value: V) -> str | None:
        return cast("str | None", getattr(value, "epoch", self._identity.epoch))

    async def _find_later(self, key: K) -> Reading[V] | None:
        await self._trust.believed()
        return await self._gets.ask_here(key)

    def _count_hits(self, found: Sequence[Reading[V] | None], readers: Sequence[int]) -> None:
        hits = sum(times for reading, times in zip(found, readers, strict=True) if type(reading) is Reading)
        if hits:
            self._observe(self._name, Event.HIT, NO_TIME, hits)
