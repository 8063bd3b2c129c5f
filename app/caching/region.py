"""The values of one kind under one name in Redis, and the rules that keep them true.

    users:{42}          "<schema> <version> <stored at> <fresh for> <load cost> <CRC-32> <JSON>", times in Redis' ms
    users:{42}:lease    the token of whoever may load it now
    users:{42}:floor    "<life> <version>", the newest version known to be invalidated

The braces are a hash tag: in a cluster the three keys of a value share a slot, and so a script. The schema is a hash of
the model's own, and of the life of Redis: what another version of the application wrote is a miss, and is overwritten.
So is what was kept in another epoch, or by another run, and what lacks its checksum: it would be sent as it is stored.

A row that does not exist is kept too, as version 0 without JSON, for a short time; any invalidation removes it.

What can go wrong: `CacheUnavailable`, from nearly every method, when Redis does not answer, or may not be believed
(`Breaker`). A fill then counts as refused, and an invalidation waits until nobody believes the old value.
"""

import hashlib
import json
import random
import secrets
import zlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import Any, Generic, TypeVar, cast

from redis.asyncio import Redis

from app.caching.background import Background
from app.caching.batching import LARGEST, Batching
from app.caching.breaker import Breaker
from app.caching.clock import RedisClock
from app.caching.errors import REDIS_DOWN, CacheUnavailable
from app.caching.lease import Fill, K, Lease, Loaded
from app.caching.observing import Event, Observe
from app.caching.reading import Outcome, Reading, V
from app.caching.scripts import script
from app.caching.words import unavailable

T = TypeVar("T")

LEASE = timedelta(seconds=3)
"""A load may take so long. When its holder dies, the next reader loads after this time at the latest."""
FLOOR = timedelta(seconds=10)
"""A floor outlives a lease, so that whoever fills has also met the floor. A longer one would keep a row uncached that
was deleted and created again with a lower version."""
JITTER = 0.1
"""Entries that were filled together do not expire together: each lives up to a tenth less than it might."""

NO_TIME = timedelta(0)
FORMAT = "3"
"""Changes with the header: what was written with another one is a miss."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long the entries of a region live: `fresh` a row, then `stale` more in case that a load fails, `absent` the
    knowledge that there is no row."""

    fresh: timedelta
    stale: timedelta
    absent: timedelta


class Region(Background, Generic[K, V]):
    """The values of one type under one name, with their leases and floors.

    It is used within `async with`: at the end it waits for the loads that are still under way for readers who have
    gone, so that Redis and the database can be closed after it.
    """

    def __init__(
        self,
        redis: Redis,
        name: str,
        type_: type[V],
        *,
        lifetimes: Lifetimes,
        clock: RedisClock,
        breaker: Breaker,
        observe: Observe,
        settled: Callable[[K], Awaitable[None]],
        prefix: str = "",
    ) -> None:
        """`settled` returns when Redis was told of all committed changes of a key, or is not believed any more.
        `prefix` begins all names in Redis: who shares it has another one."""
        super().__init__()
        self._redis, self._name, self._type, self._clock, self._observe = redis, name, type_, clock, observe
        self._prefix = prefix + name
        self._settled, self.breaker = settled, breaker
        self._lifetimes = lifetimes
        schema = json.dumps(_shape(type_.model_json_schema()), sort_keys=True)
        self._schema_of_all_lives = hashlib.sha256((FORMAT + schema).encode())
        self._life: str | None = ""  # Nobody's.
        self._epoch: str | None = None
        self._word = b""
        self._lookup, self._fill = script(redis, "lookup"), script(redis, "fill")
        self._invalidate, self._release = script(redis, "invalidate"), script(redis, "release")
        self._revoke = script(redis, "revoke")
        self._gets = Batching(self._get_all, self.start, self._count_hits)
        # A future for each list, and not for each of its keys: that would cost more than to find them.
        self._lists = Batching(self._get_lists, self.start)
        self._lookups: Batching[K, Reading[V] | Lease[V]] = Batching(self._lookup_all, self.start)
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
            granted = await self._ask(lambda: self._redis.set(lease, token, nx=True, px=_ms(LEASE)))
        except CacheUnavailable:
            self.start(self._release_all([key], token))  # As after a lookup: perhaps only the answer is lost.
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
            self.start(self._release_all([key], token))
        self.report(Event.STORED if fill is Fill.STORED else Event.REFUSED)
        return reading._replace(stored=fill is Fill.STORED), fill

    async def revoke(self, key: K, token: str) -> None:
        """Takes the value and its lease away for a writer, who is about to commit. Raises CacheUnavailable, also when
        Redis was told and is not believed any more."""
        keys = [self._key(key), self._key(key) + ":lease"]
        await self._ask(lambda: self._revoke(keys=keys, args=[token, _ms(LEASE)]))

    async def release(self, key: K, token: str) -> None:
        """Gives back the lease of a load that failed. Never raises: the lease ends by itself."""
        await self._release_all([key], token)

    async def invalidate(self, key: K, version: int) -> None:
        """Forgets what is not of `version`, which the database has committed, and voids the load under way.

        Never raises. When Redis cannot be told, it returns when nobody reads the old value any more:

            A commits, and cannot reach Redis; answered at once,
                                                R on B, who can, would start after that, and hit the old value
        """
        try:
            await self._told(lambda: self.forget(key, version))
        except CacheUnavailable:
            self.report(Event.INVALIDATION_FAILED)
            await self._settled(key)

    async def forget(self, key: K, version: int) -> None:
        """As `invalidate`, for a relay, which can try again: raises CacheUnavailable."""
        await self._invalidations.ask((key, version))
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

    @property
    def _schema(self) -> bytes:
        """The first word of the header. It is of one life of Redis: what another one has kept may have been invalidated
        since, and brought back by a restart, or was loaded from a database that went back."""
        life = self.breaker.life
        if life != self._life:
            whole = self._schema_of_all_lives.copy()
            whole.update(str(life).encode())
            self._life, self._word = life, whole.hexdigest()[:8].encode()
            self._epoch = self.breaker.epoch
        return self._word

    @property
    def _life_word(self) -> str:
        """The first word of a floor: of this life, in whatever version of the application."""
        return hashlib.sha256(str(self.breaker.life).encode()).hexdigest()[:8]

    def _epoch_of(self, value: V) -> str | None:
        epoch: str | None = getattr(value, "epoch", self.breaker.epoch)
        return epoch

    def _key(self, key: K) -> str:
        return f"{self._prefix}:{{{key}}}"

    def _parse(self, raw: bytes, outcome: Outcome, verified: bool, schema: bytes, now: float) -> Reading[V] | None:
        try:
            word, version, stored_at, fresh_for, cost, checksum, payload = raw.split(b" ", 6)
            if word != schema or int(checksum, 16) != zlib.crc32(payload):
                return None
            row, age = int(version), now - int(stored_at)
            ttl, took = int(fresh_for) - age, int(cost)
        except ValueError:
            return None
        if age < 0:  # Our copy of Redis' clock is off by what an answer took.
            age = 0.0
        # The word has just been made, or found to be the present one: the entry is of that epoch.
        return Reading(payload if row else None, row, outcome, self._type, age, ttl, took, False, verified, self._epoch)

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
        schema, now = self._schema, self._clock.now()
        readings: list[Reading[V] | None] = []
        for raw in found:
            reading = None if raw is None else self._parse(raw, Outcome.HIT, verified, schema, now)
            if reading is None and raw is not None:
                self.report(Event.FOREIGN)
            readings.append(None if reading is None or reading.ttl_ms <= 0 else reading)
        return readings

    async def _get_lists(self, lists: Sequence[Sequence[K]]) -> Sequence[Sequence[Reading[V] | None]]:
        keys = list(dict.fromkeys(chain.from_iterable(lists)))
        slices = [keys[start : start + LARGEST] for start in range(0, len(keys), LARGEST)]
        found = dict(zip(keys, [reading for some in slices for reading in await self._get_all(some)], strict=True))
        return [[found[key] for key in some] for some in lists]

    async def _lookup_all(self, keys: Sequence[K]) -> Sequence[Reading[V] | Lease[V]]:
        token, verified = secrets.token_hex(8), self.breaker.verified
        named = [name for key in keys for name in (self._key(key), self._key(key) + ":lease")]
        try:
            now, *answers = await self._ask(lambda: self._lookup(keys=named, args=[token, self._schema, _ms(LEASE)]))
        except CacheUnavailable:
            # Perhaps only the answer is lost, and nobody knows of the leases that it granted.
            self.start(self._release_all(keys, token))
            raise
        self._clock.set(now)
        readings = [self._answer(verified, *answer) for answer in answers]
        rotten = [key for key, reading in zip(keys, readings, strict=True) if reading is None]
        if not rotten:
            return [reading for reading in readings if reading is not None]
        # The script knows no checksums, and took it for a value. What is gone is a miss, and no harm is done.
        await self._ask(lambda: self._redis.delete(*map(self._key, rotten)))
        again = iter(await self._lookup_all(rotten))
        return [reading or next(again) for reading in readings]

    def _answer(
        self, verified: bool, kind: bytes, what: bytes, old: bytes | None = None
    ) -> Reading[V] | Lease[V] | None:
        schema, now = self._schema, self._clock.now()
        if kind == b"entry":
            return self._parse(what, Outcome.HIT, verified, schema, now)
        stale = None if old is None else self._parse(old, Outcome.STALE, verified, schema, now)
        return Lease(what.decode(), kind == b"lease", stale)

    async def _release_all(self, keys: Sequence[K], token: str) -> None:
        with suppress(CacheUnavailable):  # It was counted, and the leases end by themselves.
            names = [self._key(key) + ":lease" for key in keys]
            await self._ask(lambda: self._release(keys=names, args=[token]), believed=False)

    async def _fill_all(self, fills: Sequence[Loaded[K]]) -> Sequence[Fill]:
        keys = [name for fill in fills for name in self._names(fill.key)]
        args: list[bytes | str | int] = [self._schema, self._life_word]
        for fill in fills:
            if fill.version:
                fresh = self._lifetimes.fresh * (1 - JITTER * random.random())
                keep = fresh + self._lifetimes.stale
            else:
                fresh = keep = self._lifetimes.absent * (1 - JITTER * random.random())
            payload = _checksum(fill.payload) + b" " + fill.payload
            args += [fill.token, fill.version, _ms(fill.cost), _ms(fresh), _ms(keep), payload]
        return [Fill(answer.decode()) for answer in await self._ask(lambda: self._fill(keys=keys, args=args))]

    async def _invalidate_all(self, changes: Sequence[tuple[K, int]]) -> Sequence[None]:
        keys = [name for key, _version in changes for name in self._names(key)]
        args = [_ms(FLOOR), self._life_word, *(version for _key, version in changes)]
        await self._ask(lambda: self._invalidate(keys=keys, args=args), believed=False)
        return [None] * len(changes)

    async def _told(self, call: Callable[[], Awaitable[None]]) -> None:
        """Tells Redis something that counts only while this Redis is believed, before and after:

        A believes R1, and tells it             B finds R2 to be the one, fills it with the old value, and is believed
        R1 has answered; A must not answer, for nobody asks R1 any more
        """
        losses, life = self.breaker.losses, self.breaker.life
        if not self.breaker.is_open:
            await self.breaker.believed()
        await call()
        await self.breaker.believed()
        if losses != self.breaker.losses or life != self.breaker.life:
            raise CacheUnavailable(f"Redis is not believed for {self._name}: {self.breaker.why}.")

    def _names(self, key: K) -> tuple[str, str, str]:
        name = self._key(key)
        return name, name + ":lease", name + ":floor"

    async def _ask(self, call: Callable[[], Awaitable[T]], *, believed: bool = True) -> T:
        """What Redis answers. `believed` says that the answer counts only if Redis may be believed; else it is enough
        that it answers: a relay has to get through before it can close the breaker."""
        losses = self.breaker.losses
        if self.breaker.is_open if believed else not self.breaker.writable:
            raise CacheUnavailable(f"Redis is not asked for {self._name}: {self.breaker.why}.")
        try:
            answer = await call()
        except REDIS_DOWN as error:
            self.breaker.failed(error)
            self.report(Event.UNAVAILABLE)
            raise unavailable(error, self._name) from error
        self.breaker.answered()
        if believed and losses != self.breaker.losses:
            # It went out on a connection to a Redis that had just restarted, which another connection had found out.
            raise CacheUnavailable(f"Redis is not believed for {self._name}: {self.breaker.why}.")
        return answer


def _shape(schema: Any) -> Any:
    """A JSON schema without what is only said about it: a better description must not make all entries foreign."""
    if isinstance(schema, dict):
        said = ("title", "description", "examples", "default")
        return {key: _shape(value) for key, value in schema.items() if key not in said or isinstance(value, dict)}
    return [_shape(value) for value in schema] if isinstance(schema, list) else schema


def _checksum(payload: bytes) -> bytes:
    return b"%08x" % zlib.crc32(payload)


def _ms(duration: timedelta) -> int:
    return max(1, round(duration / timedelta(milliseconds=1)))
