"""The values of one kind under one name in Redis, and the rules that keep them true.

    users:{42}          "<schema> <version> <stored at> <fresh until> <load cost> <JSON>", times in Redis' milliseconds
    users:{42}:lease    the token of whoever may load it now
    users:{42}:floor    the newest version known to be invalidated

The braces are a hash tag: in a cluster the three keys of a value share a slot, and so a script. The schema is a hash of
the model's own: a value that another version of the application wrote is a miss, and is overwritten.

A row that does not exist is kept too, as version 0 without JSON, for a short time; any invalidation removes it.

What can go wrong: `CacheUnavailable`, from every method, when Redis does not answer. A fill then counts as refused.
"""

import asyncio
import hashlib
import json
import random
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Generic, cast

from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from app.caching.background import Background
from app.caching.batching import Batching
from app.caching.clock import RedisClock
from app.caching.errors import REDIS_DOWN, CacheUnavailable
from app.caching.lease import Fill, K, Lease, Loaded
from app.caching.observing import Event, Observe
from app.caching.reading import Outcome, Reading, V
from app.caching.scripts import script

LEASE = timedelta(seconds=3)
"""A load may take so long. When its holder dies, the next reader loads after this time at the latest."""
FLOOR = timedelta(seconds=10)
"""A floor outlives a lease, so that whoever fills has also met the floor. A longer one would keep a row uncached that
was deleted and created again with a lower version."""
JITTER = 0.1
"""Entries that were filled together do not expire together: each lives up to a tenth less than it might."""


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
        observe: Observe,
    ) -> None:
        super().__init__()
        self._redis, self._name, self._type, self._clock, self._observe = redis, name, type_, clock, observe
        self._lifetimes = lifetimes
        schema = json.dumps(_shape(type_.model_json_schema()), sort_keys=True)
        self._schema = hashlib.sha256(schema.encode()).hexdigest()[:8].encode()
        self._lookup, self._fill = script(redis, "lookup"), script(redis, "fill")
        self._invalidate, self._release = script(redis, "invalidate"), script(redis, "release")
        self._revoke = script(redis, "revoke")
        self._gets = Batching(self._get_all, self.start)
        self._lookups = Batching(self._lookup_all, self.start)
        self._fills = Batching(self._fill_all, self.start)
        self._invalidations = Batching(self._invalidate_all, self.start)

    async def find(self, key: K) -> Reading[V] | None:
        """The fresh value under `key`, None when there is none: one GET."""
        return self._hit(await self._gets.ask(key))

    async def find_all(self, keys: Sequence[K]) -> list[Reading[V] | None]:
        """The same for many keys, in their order: one MGET."""
        return [self._hit(raw) for raw in await asyncio.gather(*map(self._gets.ask, keys))]

    async def lookup(self, key: K) -> Reading[V] | Lease[V]:
        """The value, or who loads it. All that ask in one tick get one answer, and so share a lease that it grants."""
        return await self._lookups.ask(key)

    async def fill(
        self, key: K, token: str, value: V | None, cost: timedelta = timedelta(0)
    ) -> tuple[Reading[V], Fill]:
        """Keeps a row under the lease `token`, and answers it as a reading. `cost` is what its load took.

        Never raises: the answer is there anyway.
        """
        reading = self.unkept(value, Outcome.MISS)
        try:
            fill = await self._fills.ask(Loaded(key, token, reading.version, reading.payload or b"", cost))
        except CacheUnavailable:
            fill = Fill.LOST
        self.report(Event.STORED if fill is Fill.STORED else Event.REFUSED)
        return replace(reading, stored=fill is Fill.STORED), fill

    async def revoke(self, key: K, token: str) -> None:
        """Takes the value and its lease away for a writer, who is about to commit."""
        await self._run(self._revoke, [self._key(key), self._key(key) + ":lease"], [token, _ms(LEASE)])

    async def release(self, key: K, token: str) -> None:
        """Gives back the lease of a load that failed. Never raises: the lease ends by itself."""
        await self._release_all([key], token)

    async def invalidate(self, key: K, version: int) -> None:
        """Forgets what is not of `version`, which the database has committed, and voids the load under way."""
        await self._invalidations.ask((key, version))
        self.report(Event.INVALIDATED)

    def unkept(self, value: V | None, outcome: Outcome) -> Reading[V]:
        """A reading of what the database answered, and the cache does not keep."""
        payload, version = (None, 0) if value is None else (value.model_dump_json().encode(), value.version)
        return Reading(payload, version, outcome, self._type)

    def report(self, event: Event, took: timedelta = timedelta(0)) -> None:
        """Tells the owner of this region what happened."""
        self._observe(self._name, event, took)

    def _key(self, key: K) -> str:
        return f"{self._name}:{{{key}}}"

    def _hit(self, raw: bytes | None) -> Reading[V] | None:
        reading = self._parse(raw)
        if reading is None and raw is not None:
            self.report(Event.FOREIGN)
        if reading is None or reading.ttl <= timedelta(0):
            return None
        self.report(Event.HIT)
        return reading

    def _parse(self, raw: bytes | None, outcome: Outcome = Outcome.HIT) -> Reading[V] | None:
        words = (raw or b"").split(b" ", 5)
        if len(words) != 6 or words[0] != self._schema:
            return None
        try:
            version, stored_at, fresh_until = map(int, words[1:4])
        except ValueError:
            return None
        now = self._clock.now()
        # Our copy of Redis' clock is off by what an answer took: nothing is younger than nothing.
        age, ttl = timedelta(milliseconds=max(0, now - stored_at)), timedelta(milliseconds=fresh_until - now)
        return Reading(words[5] if version else None, version, outcome, self._type, age=age, ttl=ttl)

    async def _get_all(self, keys: Sequence[K]) -> Sequence[bytes | None]:
        try:
            # redis-py's own type allows text, which a client gets that asked for decoded answers; open_redis does not.
            return cast("list[bytes | None]", await self._redis.mget([self._key(key) for key in keys]))
        except REDIS_DOWN as error:
            raise self._unavailable(error) from error

    async def _lookup_all(self, keys: Sequence[K]) -> Sequence[Reading[V] | Lease[V]]:
        token = secrets.token_hex(8)
        named = [name for key in keys for name in (self._key(key), self._key(key) + ":lease")]
        try:
            now, *answers = await self._run(self._lookup, named, [token, self._schema, _ms(LEASE)])
        except CacheUnavailable:
            # Perhaps only the answer is lost, and nobody knows of the leases that it granted.
            self.start(self._release_all(keys, token))
            raise
        self._clock.set(now)
        return [self._answer(*answer) for answer in answers]

    def _answer(self, kind: bytes, what: bytes, old: bytes | None = None) -> Reading[V] | Lease[V]:
        if kind == b"entry":
            found = self._parse(what)
            assert found is not None, "The script reads a header by the same rules."
            return found
        return Lease(what.decode(), kind == b"lease", self._parse(old, Outcome.STALE))

    async def _release_all(self, keys: Sequence[K], token: str) -> None:
        with suppress(CacheUnavailable):  # It was counted, and the leases end by themselves.
            await self._run(self._release, [self._key(key) + ":lease" for key in keys], [token])

    async def _fill_all(self, fills: Sequence[Loaded[K]]) -> Sequence[Fill]:
        keys = [name for fill in fills for name in self._names(fill.key)]
        args: list[bytes | str | int] = [self._schema]
        for fill in fills:
            if fill.version:
                fresh = self._lifetimes.fresh * (1 - JITTER * random.random())
                keep = fresh + self._lifetimes.stale
            else:
                fresh = keep = self._lifetimes.absent * (1 - JITTER * random.random())
            args += [fill.token, fill.version, _ms(fill.cost), _ms(fresh), _ms(keep), fill.payload]
        return [Fill(answer.decode()) for answer in await self._run(self._fill, keys, args)]

    async def _invalidate_all(self, changes: Sequence[tuple[K, int]]) -> Sequence[None]:
        keys = [name for key, _version in changes for name in self._names(key)]
        await self._run(self._invalidate, keys, [_ms(FLOOR), *(version for _key, version in changes)])
        return [None] * len(changes)

    def _names(self, key: K) -> tuple[str, str, str]:
        name = self._key(key)
        return name, name + ":lease", name + ":floor"

    async def _run(self, script: AsyncScript, keys: Sequence[str], args: Sequence[bytes | str | int]) -> Any:
        try:
            return await script(keys=keys, args=args)
        except REDIS_DOWN as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> CacheUnavailable:
        self.report(Event.UNAVAILABLE)
        return CacheUnavailable(f"Redis did not answer for {self._name}: {error}")


def _shape(schema: Any) -> Any:
    """A JSON schema without what is only said about it: a better description must not make all entries foreign."""
    if isinstance(schema, dict):
        said = ("title", "description", "examples", "default")
        return {key: _shape(value) for key, value in schema.items() if key not in said or isinstance(value, dict)}
    return [_shape(value) for value in schema] if isinstance(schema, list) else schema


def _ms(duration: timedelta) -> int:
    return max(1, round(duration / timedelta(milliseconds=1)))
