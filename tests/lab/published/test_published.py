"""What every published variant does when nothing goes wrong."""

import asyncio
from datetime import timedelta

import pytest

from app.lab.published import PUBLISHED, Published, TtlOnly
from app.lab.strategy import Holds
from tests.lab.published.conftest import Arguments

variants = pytest.mark.parametrize("variant", PUBLISHED.values(), ids=PUBLISHED)


@variants
async def test_without_concurrency_writes_reach_the_database_and_are_read(
    variant: Published, arguments: Arguments
) -> None:
    strategy = variant.make(*arguments)
    for value in (5, 6, 7):
        await strategy.write("k", value)
    # Nothing writes during the flush: that is where the defects are.
    async with strategy.running():
        pass
    expected = 3 if strategy.holds is Holds.COUNTS else 7
    assert await arguments[1].value() == expected
    assert await strategy.read("k") == expected
    assert await strategy.read("k") == expected
    assert await arguments[1].value("l") == 0


@variants
async def test_a_second_read_does_not_ask_the_database(variant: Published, arguments: Arguments) -> None:
    strategy = variant.make(*arguments)
    assert [await strategy.read("k") for _ in range(10)] == [0] * 10
    assert arguments[1].loads == 1


@variants
async def test_a_missing_row_is_read_as_none(variant: Published, arguments: Arguments) -> None:
    assert await variant.make(*arguments).read("nothing") is None


@variants
async def test_a_variant_to_copy_shows_no_anomaly_unless_it_is_ttl_only(variant: Published) -> None:
    assert variant.copy == (not variant.shows) or variant.make is TtlOnly
    assert variant.defect.endswith(".")


async def test_ttl_only_is_stale_until_the_entry_expires(arguments: Arguments) -> None:
    redis, numbers, prefix, _ttl = arguments
    strategy = TtlOnly(redis, numbers, prefix, timedelta(minutes=1))
    assert await strategy.read("k") == 0
    await strategy.write("k", 1)
    assert await strategy.read("k") == 0
    assert 0 < await redis.ttl("lab:k") <= 60
    await redis.delete("lab:k")  # It expires.
    assert await strategy.read("k") == 1


async def test_running_ends_at_once_when_the_block_raises(arguments: Arguments) -> None:
    for variant in PUBLISHED.values():
        strategy = variant.make(*arguments)
        with pytest.raises(RuntimeError, match="in the middle"):
            async with strategy.running():
                raise RuntimeError("in the middle")
    assert not [task for task in asyncio.all_tasks() if "flushing" in str(task.get_coro())]
