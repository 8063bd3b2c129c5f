"""Dirty flags, as published and repaired."""

import asyncio

import pytest

from app.lab.published import DirtyKeys, DirtyKeysCompared
from tests.lab.published.conftest import Arguments

published_and_repaired = pytest.mark.parametrize(("make", "right"), [(DirtyKeys, False), (DirtyKeysCompared, True)])


@published_and_repaired
async def test_a_write_during_a_flush_is_lost_as_published_and_kept_as_repaired(
    arguments: Arguments, make: type[DirtyKeys] | type[DirtyKeysCompared], right: bool
) -> None:
    """S GETs 1, UPDATEs to 1 · W INCRs to 2, sets the flag · S clears it"""
    counter, numbers = make(*arguments), arguments[1]
    await counter.write("k", 1)
    with numbers.held_behind() as gate:
        syncing = asyncio.create_task(make(*arguments).flush())
        await gate.reached.wait()
        await counter.write("k", 1)
    await syncing
    await counter.flush()
    assert await counter.read("k") == 2
    assert await numbers.value() == (2 if right else 1)


@published_and_repaired
async def test_initialising_a_counter_erases_counts_as_published_and_keeps_them_as_repaired(
    arguments: Arguments, make: type[DirtyKeys] | type[DirtyKeysCompared], right: bool
) -> None:
    """V SELECTs 0 · W SETs 0, INCRs to 1, and is acknowledged · V SETs 0"""
    with arguments[1].held_behind() as gate:
        reading = asyncio.create_task(make(*arguments).read("k"))
        await gate.reached.wait()
        await make(*arguments).write("k", 1)
    await reading
    assert await make(*arguments).read("k") == (1 if right else 0)


@pytest.mark.parametrize("make", [DirtyKeys, DirtyKeysCompared])
async def test_a_key_remains_marked_when_the_database_fails(
    arguments: Arguments, make: type[DirtyKeys] | type[DirtyKeysCompared]
) -> None:
    counter, numbers = make(*arguments), arguments[1]
    await counter.write("k", 1)
    numbers.failures = 1
    with pytest.raises(ConnectionError):
        await counter.flush()
    assert await counter.flush() == 1
    assert await numbers.value() == 1


@pytest.mark.parametrize("make", [DirtyKeys, DirtyKeysCompared])
async def test_a_thousand_additions_are_one_write(
    arguments: Arguments, make: type[DirtyKeys] | type[DirtyKeysCompared]
) -> None:
    counter = make(*arguments)
    await asyncio.gather(*(counter.write("k", 1) for _ in range(100)))
    for _ in range(900):
        await counter.write("k", 1)
    assert [await counter.flush(), await counter.flush()] == [1, 0]
