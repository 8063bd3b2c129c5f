"""How operations are played, and what is counted, over strategies that do as the test says."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import timedelta

import pytest

from app.embedded import Endpoints
from app.lab.comparison.bench import Bench, open_bench
from app.lab.comparison.contestant import Contestant, Kind
from app.lab.comparison.replay import Player
from app.lab.strategy import Holds, Strategy
from app.lab.traces.operation import Kind as OperationKind
from app.lab.traces.operation import Operation

READS = [Operation(OperationKind.READ, "key")] * 6
RATE = 100.0
STALL = 0.2
"""Seconds; more than twice as long as all the reads take to come due."""


class Held:
    """Answers no read before `most` reads wait at the same time."""

    holds = Holds.VALUES

    def __init__(self, most: int) -> None:
        self._most, self._waiting, self._go = most, 0, asyncio.Event()

    async def read(self, key: str) -> int | None:
        self._waiting += 1
        if self._waiting == self._most:
            self._go.set()
        await self._go.wait()
        return 0

    async def write(self, key: str, value: int) -> None:
        raise OSError("the disk is full")

    def running(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()


@pytest.fixture
async def bench(lab_endpoints: Endpoints) -> AsyncIterator[Bench]:
    contestants = [Contestant("held", Kind.PUBLISHED, "", False, lambda *_: Held(1))]
    async with open_bench(lab_endpoints, contestants, "test", ttl=timedelta(minutes=5)) as bench:
        yield bench


class Stalling(Held):
    """Blocks the whole event loop in its first read."""

    def __init__(self) -> None:
        super().__init__(1)
        self._stood = False

    async def read(self, key: str) -> int | None:
        if not self._stood:
            self._stood = True
            time.sleep(STALL)  # noqa: ASYNC251  # that is what it is about
        return 0


def player(bench: Bench, strategy: Strategy) -> Player:
    (entrant,) = bench.entrants
    return Player(type(entrant)(entrant.contestant, strategy, entrant.redis, "", "", entrant.costs), bench)


async def test_a_closed_loop_has_as_many_operations_in_flight_as_clients(bench: Bench) -> None:
    playing = player(bench, Held(3))
    assert await playing.closed(READS, 3, asyncio.Event()) == len(READS)
    assert len(playing.tally.reads) == len(READS)


async def test_an_open_loop_sends_what_is_due_without_waiting_for_answers(bench: Bench) -> None:
    # With a client that waits for its answer, the first would wait forever.
    playing = player(bench, Held(len(READS)))
    assert await playing.open(READS, RATE, asyncio.Event()) == len(READS)


async def test_in_an_open_loop_latency_counts_from_when_the_operation_was_due(bench: Bench) -> None:
    playing = player(bench, Stalling())
    await playing.open(READS, RATE, asyncio.Event())
    # All but the first were due during the stall. They were answered at once, and yet have waited for it.
    assert all(wait > STALL / 2 for wait in playing.tally.reads)


async def test_a_failed_operation_is_counted_with_its_error_and_has_no_latency(bench: Bench) -> None:
    playing = player(bench, Held(1))
    await playing.closed([Operation(OperationKind.WRITE, "key")] * 2, 1, asyncio.Event())
    tally = playing.tally
    assert (tally.errors, tally.acknowledged, len(tally.writes)) == (2, 0, 0)
    assert tally.first_error == "OSError: the disk is full"


async def test_it_stops_when_it_is_told_to(bench: Bench) -> None:
    stop = asyncio.Event()
    stop.set()
    playing = player(bench, Held(1))
    assert await playing.closed(READS, 2, stop) == 0
    assert await playing.open(READS, RATE, stop) == 0
