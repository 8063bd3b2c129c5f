"""`write`: a change that cannot forget to invalidate."""

import asyncio
from collections.abc import Coroutine
from typing import cast

import pytest
from redis.asyncio import Redis

from app.caching import CacheAside, NotInvalidated, Outcome, Region, open_cache
from app.embedded import Endpoints
from tests.caching.conftest import NewRegion, Source, Thing
from tests.caching.test_cache import A_WHILE
from tests.faults.redis_wire import RedisWire

OLD, NEW = Thing(name="old", version=1), Thing(name="new", version=2)


async def test_a_created_row_takes_its_key_from_the_result(region: Region[int, Thing], source: Source) -> None:
    cache = CacheAside(region)

    async def insert() -> tuple[int, Thing]:
        source.rows[7] = OLD
        return 7, OLD

    assert (await cache.get(7, source.get)).value is None
    assert await cache.write(insert(), lambda made: {made[0]: made[1].version}) == (7, OLD)
    assert (await cache.get(7, source.get)).value == OLD


async def test_a_renamed_row_is_invalidated_under_both_names(region: Region[int, Thing], source: Source) -> None:
    cache = CacheAside(region)
    source.rows[1] = OLD

    async def rename() -> Thing:
        del source.rows[1]
        source.rows[2] = NEW
        return NEW

    assert [(await cache.get(key, source.get)).value for key in (1, 2)] == [OLD, None]
    await cache.write(rename(), lambda row: {1: row.version, 2: row.version})
    assert [(await cache.get(key, source.get)).value for key in (1, 2)] == [None, NEW]


async def test_a_caller_cancelled_after_the_commit_leaves_no_old_value(new_region: NewRegion, source: Source) -> None:
    """W's statement is committed · W's client hangs up, and W is cancelled · R reads: it must not hit the old value"""
    region, other = new_region(), CacheAside(new_region())
    cache, committed, goes_on = CacheAside(region), asyncio.Event(), asyncio.Event()
    source.rows[1] = OLD
    await other.get(1, source.get)

    async def update() -> Thing:
        source.rows[1] = NEW
        committed.set()
        await goes_on.wait()
        return NEW

    writer = asyncio.create_task(cache.write(update(), lambda row: {1: row.version}))
    await committed.wait()
    writer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writer
    goes_on.set()
    async with region:
        """Closing it waits for the work in the background."""
    assert (await other.get(1, source.get)).value == NEW


async def test_a_failed_write_invalidates_nothing(region: Region[int, Thing], source: Source) -> None:
    cache = CacheAside(region)
    source.rows[1] = OLD
    await cache.get(1, source.get)

    async def fails() -> Thing:
        raise ValueError("The name is taken.")

    with pytest.raises(ValueError, match="The name is taken"):
        await cache.write(fails(), lambda row: {1: row.version})
    assert (await cache.get(1, source.get)).outcome is Outcome.HIT


async def test_without_a_relay_the_error_carries_the_result_and_all_keys_are_owed(
    endpoints: Endpoints, redis: Redis, source: Source
) -> None:
    """W commits a change of two keys, and cannot reach Redis: both are retried, and the caller gets the new row."""

    async def update() -> Thing:
        return NEW

    async with (
        RedisWire(endpoints.redis_url) as wire,
        open_cache(wire.url, timeout=A_WHILE) as opened,
        Region[int, Thing](opened, "things", Thing) as region,
    ):
        cache = CacheAside(region)
        await cache.get(1, source.get)
        wire.refuse()
        with pytest.raises(NotInvalidated) as raised:
            await cache.write(update(), lambda row: {1: row.version, 2: row.version})
        assert raised.value.result == NEW
        assert opened.renewal is not None
        assert opened.renewal.owed == 2
        wire.heal()


@pytest.mark.parametrize("mistake", ["changed fails", "one version is none"])
async def test_a_mistake_in_the_changed_keys_raises_an_error_that_carries_the_result(
    region: Region[int, Thing], source: Source, caplog: pytest.LogCaptureFixture, mistake: str
) -> None:
    """The write is committed: the error must not look as if it were not, and the other keys are invalidated."""
    cache = CacheAside(region)
    source.rows[2] = OLD
    await cache.get(2, source.get)

    async def update() -> Thing:
        source.rows[2] = NEW
        return NEW

    def changed(row: Thing) -> dict[int, int]:
        if mistake == "changed fails":
            raise AttributeError("A row has no such field.")
        return {1: cast("int", "abc"), 2: row.version}

    with pytest.raises(NotInvalidated, match="The write is committed but not invalidated") as raised:
        await cache.write(update(), changed)
    assert raised.value.result == NEW
    assert "A write is committed, but not everything it changed was invalidated" in caplog.text
    if mistake != "changed fails":
        assert (await cache.get(2, source.get)).value == NEW


@pytest.mark.parametrize("save", [lambda: None, "rename"], ids=["a function", "a text"])
async def test_a_write_that_is_not_the_call_of_an_async_function_is_refused(
    region: Region[int, Thing], save: object
) -> None:
    with pytest.raises(TypeError, match="`write` takes the call of an async function"):
        await CacheAside(region).write(cast("Coroutine[None, None, None]", save), lambda _result: {})
