"""Shared by the tests of the library: a value to cache, a source to load it from, and a count of reported events."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import BaseModel

from app.caching import Bulkhead, Cache, Event, Lifetimes, Region
from tests.settled import settled

TURNS = 4
"""How many reads of a region may bypass the cache at the same time."""
LIFETIMES = Lifetimes(fresh=timedelta(minutes=5), stale=timedelta(minutes=5), absent=timedelta(seconds=30))


class Thing(BaseModel, frozen=True):
    """A value to cache."""

    name: str
    version: int


class Source:
    """Rows to load, a count of the reads of each, and a gate that holds back what was read until it opens."""

    def __init__(self) -> None:
        self.rows: dict[int, Thing] = {}
        self.asked: Counter[int] = Counter()
        self.calls = 0
        self.error: Exception | None = None
        self.read = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    async def get(self, key: int) -> Thing | None:
        """Reads one row."""
        return (await self.get_many([key])).get(key)

    async def get_many(self, keys: Sequence[int]) -> dict[int, Thing]:
        """Reads many rows in one call. They are read immediately and returned when the gate opens."""
        self.calls += 1
        self.asked.update(keys)
        rows = {key: self.rows[key] for key in keys if key in self.rows}
        error = self.error
        self.read.set()
        await self.open.wait()
        if error is not None:
            raise error
        return rows

    def hold(self) -> None:
        """Closes the gate. `read` is set when the next read waits at the gate."""
        self.read.clear()
        self.open.clear()


@pytest.fixture
def source() -> Iterator[Source]:
    """An empty source with its gate open."""
    source = Source()
    yield source
    source.open.set()  # A test that failed before it opened the gate leaves a load waiting there.


@pytest.fixture
def reported() -> Counter[Event]:
    """How often the cache reported each event."""
    return Counter()


NewRegion = Callable[[], Region[int, Thing]]


@pytest.fixture
async def new_region(opened: Cache, reported: Counter[Event]) -> AsyncIterator[NewRegion]:
    """Makes regions over the same keys. Each acts as a separate process: they share nothing but Redis."""

    def observe(name: str, event: Event, took: timedelta, times: int) -> None:
        assert name == "things"
        reported[event] += times

    async with AsyncExitStack() as stack:

        def new() -> Region[int, Thing]:
            region: Region[int, Thing] = Region(
                replace(opened, bulkhead=Bulkhead(TURNS)),
                "things",
                Thing,
                lifetimes=LIFETIMES,
                settled=settled,
                observe=observe,
            )
            stack.push_async_exit(region)
            return region

        yield new


@pytest.fixture
def region(new_region: NewRegion) -> Region[int, Thing]:
    """One region."""
    return new_region()
