"""Many tasks of this process that call the library, each again and again: load without HTTP."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from tests.benchmarks.measurement import Sample, WrongAnswer

T = TypeVar("T")
R = TypeVar("R")


async def hammer(
    call: Callable[[T], Awaitable[R]],
    arguments: Sequence[T],
    is_right: Callable[[T, R], bool],
    *,
    tasks: int,
    turn: timedelta,
) -> Sample:
    """Calls with the arguments in turns, for the duration of `turn`. Raises WrongAnswer unless each answer `is_right`.

    The called function is not wrapped, and the check is one plain call: one more coroutine would cost the fastest
    variant a tenth.
    """
    done = 0
    cpu, began = time.process_time(), time.perf_counter()
    end = began + turn.total_seconds()

    async def caller(place: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            argument = arguments[place % len(arguments)]
            answer = await call(argument)
            if not is_right(argument, answer):
                raise WrongAnswer(f"{argument} was answered with {answer!r}.")
            place += 1
            done += 1

    await asyncio.gather(*(caller(task * len(arguments) // tasks) for task in range(tasks)))
    took = timedelta(seconds=time.perf_counter() - began)
    return Sample(done, took, timedelta(seconds=time.process_time() - cpu))


async def one_by_one(
    call: Callable[[T], Awaitable[None]], arguments: Sequence[T], *, turn: timedelta | None = None
) -> Sample:
    """Calls with the arguments one after another, for the duration of `turn`, or once each, and measures how long a
    call takes."""
    took: list[float] = []
    cpu, began = time.process_time(), time.perf_counter()
    while turn is None or time.perf_counter() - began < turn.total_seconds():
        before = time.perf_counter()
        await call(arguments[len(took) % len(arguments)])
        took.append(time.perf_counter() - before)
        if turn is None and len(took) == len(arguments):
            break
    whole, used = time.perf_counter() - began, time.process_time() - cpu
    took.sort()
    p50, p99 = (timedelta(seconds=took[len(took) * part // 100]) for part in (50, 99))
    return Sample(len(took), timedelta(seconds=whole), timedelta(seconds=used), p50, p99)
