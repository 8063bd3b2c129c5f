"""The published cache-aside, and a late reader."""

import asyncio

from app.lab.published import CacheAside
from tests.lab.published.conftest import Arguments


async def test_a_slow_reader_keeps_the_old_row(arguments: Arguments) -> None:
    """R SELECTs 0, and stalls · W UPDATEs to 1, DELs, and is acknowledged · R SETEXes 0"""
    reader, writer, numbers = CacheAside(*arguments), CacheAside(*arguments), arguments[1]
    with numbers.held_behind() as gate:
        reading = asyncio.create_task(reader.read("k"))
        await gate.reached.wait()
        await writer.write("k", 1)
    assert await reading == 0
    assert (await writer.read("k"), await numbers.value()) == (0, 1)


async def test_a_writer_that_dies_before_it_invalidates_leaves_the_old_row(arguments: Arguments) -> None:
    """W UPDATEs to 1, and dies · R hits 0"""
    reader, writer, numbers = CacheAside(*arguments), CacheAside(*arguments), arguments[1]
    await reader.read("k")
    with numbers.held_behind() as gate:
        writing = asyncio.create_task(writer.write("k", 1))
        await gate.reached.wait()
        writing.cancel()
        await asyncio.wait({writing})
    assert (await reader.read("k"), await numbers.value()) == (0, 1)
