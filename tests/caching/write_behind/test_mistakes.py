"""Likely mistakes of somebody who takes write-behind home: each raises a clear error, or does no harm."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest
from pydantic import BaseModel
from redis.asyncio import Redis

from app.caching import (
    Backlog,
    Batch,
    CacheUnavailable,
    Cap,
    Flusher,
    Pending,
    Refused,
    Region,
    Standing,
    Target,
    WriteBehind,
    open_cache,
)
from app.caching.write_behind import backlog
from app.embedded import Endpoints
from tests.caching.conftest import Thing
from tests.eventually import eventually

A_WHILE = timedelta(seconds=5)


class Memory:
    """A database of a few lines. It refuses the keys in `bad`, each with its own error."""

    def __init__(self) -> None:
        self.amounts: dict[str, int] = {}
        self.ledger: set[str] = set()
        self.bad: dict[str, Exception] = {}
        self.dead = 0
        self.salvage_fails = False

    @property
    def target(self) -> Target:
        """The functions that write-behind gets."""
        return Target(self.load, self.flush, self.salvage)

    async def load(self, keys: Sequence[str], batches: Sequence[str]) -> Standing:
        """Reads amounts and ledger in one snapshot."""
        amounts = {key: self.amounts[key] for key in keys if key in self.amounts}
        return Standing(amounts, frozenset(self.ledger.intersection(batches)))

    async def flush(self, batches: Sequence[Batch]) -> int:
        """Counts all batches, or none."""
        for batch in batches:
            for key in batch.amounts:
                if key in self.bad:
                    raise self.bad[key]
        for batch in batches:
            if batch.id not in self.ledger:
                self.ledger.add(batch.id)
                for key, amount in batch.amounts.items():
                    self.amounts[key] = self.amounts.get(key, 0) + amount
        return len(batches)

    async def salvage(self, entry: Pending, reason: str, deliveries: int) -> tuple[int, int]:
        """Makes all of the entry dead letters."""
        if self.salvage_fails:
            raise Refused("The dead letters refuse it, too.")
        assert entry.batch is not None
        if entry.batch.id in self.ledger:
            return 0, 0
        self.ledger.add(entry.batch.id)
        self.dead += entry.amount
        return 0, entry.amount


@pytest.fixture
def memory() -> Memory:
    """An empty database."""
    return Memory()


@pytest.mark.parametrize("mistake", ["flush raises what nobody knows", "salvage refuses"])
async def test_a_key_that_the_target_fails_on_holds_up_no_other_key(
    endpoints: Endpoints, redis: Redis, memory: Memory, mistake: str
) -> None:
    """`flush` raises KeyError for one key, or both `flush` and `salvage` refuse it · the others are flushed"""
    memory.salvage_fails = mistake == "salvage refuses"
    memory.bad["bad"] = Refused("It is not taken.") if memory.salvage_fails else KeyError("bad")
    async with (
        open_cache(endpoints.redis_url, timeout=A_WHILE) as cache,
        WriteBehind(cache, "likes", memory.target) as likes,
    ):
        flusher = Flusher(cache, "likes", memory.target, interval=timedelta(milliseconds=5))
        await likes.add("bad", 1)
        for place in range(20):
            await likes.add(f"good {place}", 1)
        async with flusher:
            await eventually(lambda: _is(len(memory.amounts) == 20))
            await eventually(lambda: _is(flusher.trouble is not None))
            memory.bad.clear()
            await eventually(lambda: _is(memory.amounts.get("bad") == 1))
    assert memory.dead == 0


async def test_a_total_excludes_dead_letters(endpoints: Endpoints, redis: Redis, memory: Memory) -> None:
    """The total is cached as 1 · 10 more are accepted, and refused by the database · 1 more is accepted: it is 2"""
    async with (
        open_cache(endpoints.redis_url, timeout=A_WHILE) as cache,
        WriteBehind(cache, "likes", memory.target) as likes,
        Flusher(cache, "likes", memory.target, interval=timedelta(milliseconds=5)),
    ):
        await likes.add("post", 1)
        assert (await likes.get("post")).amount == 1
        await eventually(lambda: _is(memory.amounts == {"post": 1}))
        memory.bad["post"] = Refused("It is not taken.")
        assert await likes.add("post", 10) == 11
        await eventually(lambda: _is(memory.dead == 10))
        memory.bad.clear()

        async def is_right() -> bool:
            return (await likes.get("post")).amount == 1

        await eventually(is_right)
        await likes.add("post", 1)
        assert (await likes.get("post")).amount == 2


async def test_nothing_is_accepted_outside_of_the_async_with_block(
    endpoints: Endpoints, redis: Redis, memory: Memory
) -> None:
    """Before and after the block, nobody would look after an addition. Adding in a loop does not hold up the exit."""
    async with open_cache(endpoints.redis_url, timeout=A_WHILE) as cache:
        likes = WriteBehind(cache, "likes", memory.target)
        with pytest.raises(CacheUnavailable, match="outside of the `async with`"):
            await likes.add("post", 1)
        added = 0

        async def goes_on() -> None:
            nonlocal added
            while True:
                await likes.add("post", 1)
                added += 1

        async with likes:
            task = asyncio.create_task(goes_on())
            await eventually(lambda: _is(added > 10))
        with pytest.raises(CacheUnavailable, match="outside of the `async with`"):
            await task
        async with likes, Flusher(cache, "likes", memory.target):  # It can be entered again.
            await eventually(lambda: _is(memory.amounts == {"post": added}))
            await likes.add("post", 1)
    assert memory.amounts == {"post": added + 1}


async def test_a_flusher_can_be_started_again(endpoints: Endpoints, redis: Redis, memory: Memory) -> None:
    async with (
        open_cache(endpoints.redis_url, timeout=A_WHILE) as cache,
        WriteBehind(cache, "likes", memory.target) as likes,
    ):
        flusher = Flusher(cache, "likes", memory.target, interval=timedelta(milliseconds=5))
        for amount in (1, 2):
            async with flusher:
                await likes.add("post", 1)
                await eventually(lambda amount=amount: _is(memory.amounts.get("post") == amount))  # type: ignore[misc]
                assert flusher.alive


async def test_counters_without_a_flusher_log_a_warning(
    endpoints: Endpoints,
    redis: Redis,
    memory: Memory,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backlog, "PATIENCE", timedelta(milliseconds=1))
    async with (
        open_cache(endpoints.redis_url, timeout=A_WHILE) as cache,
        WriteBehind(cache, "likes", memory.target) as likes,
    ):
        looks = 0
        look = likes._waiting.look

        async def counted(cap: Cap, young: timedelta | None) -> Backlog:
            nonlocal looks
            looks += 1
            return await look(cap, young)

        monkeypatch.setattr(likes._waiting, "look", counted)
        await eventually(lambda: _is(looks > 3))
        assert "Nobody flushes" not in caplog.text, "Nothing is pending, so nothing is wrong."
        await likes.add("post-7", 1)
        await eventually(lambda: _is("Nobody flushes likes" in caplog.text))


async def test_values_and_counters_cannot_share_a_name(redis: Redis, memory: Memory, endpoints: Endpoints) -> None:
    """The value of the key 2 would have the same name as the stream of shard 2."""
    async with open_cache(endpoints.redis_url, timeout=A_WHILE) as cache:
        Region[int, Thing](cache, "likes", Thing)
        with pytest.raises(ValueError, match="likes is already the name of values: choose another one for counters"):
            WriteBehind(cache, "likes", memory.target)
        WriteBehind(cache, "views", memory.target)
        with pytest.raises(ValueError, match="views is already the name of counters"):
            Region[int, Thing](cache, "views", Thing)


@pytest.mark.parametrize("key", [7, "", b"post", "a\0b"])
async def test_an_invalid_key_is_refused_with_a_clear_error(
    endpoints: Endpoints, redis: Redis, memory: Memory, key: str
) -> None:
    async with (
        open_cache(endpoints.redis_url, timeout=A_WHILE) as cache,
        WriteBehind(cache, "likes", memory.target) as likes,
    ):
        with pytest.raises(ValueError, match="is not a key: it must be text, and not empty"):
            await likes.add(key, 1)
        with pytest.raises(ValueError, match="is not an idempotency key"):
            await likes.add("post", 1, idempotency_key=key)


async def test_a_version_that_is_not_an_int_is_refused(redis: Redis, endpoints: Endpoints) -> None:
    class Dated(BaseModel):
        version: str

    async with open_cache(endpoints.redis_url, timeout=A_WHILE) as cache:
        with pytest.raises(TypeError, match="The version of Dated is <class 'str'>: it must be an int"):
            Region[int, Dated](cache, "dated", Dated)  # type: ignore[type-var]


async def _is(found: bool) -> bool:
    return found
