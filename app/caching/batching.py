"""Combines the calls made in one tick of the event loop into one call.

    one GET per request    500 requests in flight: 500 round trips, and 500 times redis-py's cost of a command
    one MGET per tick      500 requests in flight: a few round trips

Everything that crosses the network here goes through it: GETs become one MGET, lookups and fills one script call, loads
one query. It delays a caller only until the end of the current tick.

What can go wrong: a failed call fails for all of its callers. A `CacheError` in place of a result is raised for its own
key, and the other keys get their results. They also do if a call raises `ValueError`: it is repeated by halves.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Generic, TypeVar, cast

from .errors import CacheError, Unreadable

K = TypeVar("K")
R = TypeVar("R")

Start = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
"""Starts a task, and keeps a reference to it: otherwise it could be garbage-collected while it runs."""

Waiting = dict[K, list[asyncio.Future[R]]]
"""The callers that wait for each key."""
LARGEST = 500
"""The most keys of one call. A longer MGET would block all other clients of Redis."""


class Batching(Generic[K, R]):
    """A function of many keys, called with one key at a time.

    `call` receives the distinct keys of a tick, and returns one result for each, in their order. It runs in a task that
    `start` starts. `told` is called with the results and the number of callers of each, before the callers get them.
    """

    def __init__(
        self,
        call: Callable[[Sequence[K]], Awaitable[Sequence[R | CacheError]]],
        start: Start,
        told: Callable[[Sequence[R], Sequence[int]], None] = lambda results, callers: None,
    ) -> None:
        self._call, self._start, self._told = call, start, told
        self._waiting: Waiting[K, R] = {}
        self._alone = False

    def ask(self, key: K) -> asyncio.Future[R]:
        """Returns a future of the result for `key`. The call is sent after the question, so the result is not older."""
        if not self._waiting:
            # A task begins at the end of this tick, after all questions of the tick.
            self._start(self._send())
        # One future for each caller: cancelling one caller would cancel a shared future for all.
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        others = self._waiting.get(key)
        if others is None:
            self._waiting[key] = [future]
        else:
            others.append(future)
        return future

    def ask_here(self, key: K) -> Awaitable[R]:
        """Does the same for a call that may be cancelled with its caller: a lone caller needs no task.

        If the last call had one caller, this one probably has only one, too.
        """
        if not self._alone:
            return self.ask(key)
        self._alone = False  # Callers that come while this is in flight share a call.
        return self._ask_alone(key)

    async def _ask_alone(self, key: K) -> R:
        answers = await self._call([key])
        self._alone = True
        self._told(cast("Sequence[R]", answers), [1])
        if isinstance(answers[0], CacheError):
            raise answers[0]
        return answers[0]

    async def _send(self) -> None:
        waiting, self._waiting = self._waiting, {}
        keys = list(waiting)
        self._alone = len(keys) == 1 == len(waiting[keys[0]])
        for start in range(LARGEST, len(keys), LARGEST):
            self._start(self._answer(keys[start : start + LARGEST], waiting))
        await self._answer(keys[:LARGEST], waiting)

    async def _answer(self, keys: Sequence[K], waiting: Waiting[K, R]) -> None:
        try:
            try:
                answers = await self._ask(keys, waiting)
            except ValueError:
                if len(keys) == 1:
                    raise
                # One of the keys is invalid, which is its own caller's mistake. Halving finds it.
                for half in (keys[: len(keys) // 2], keys[len(keys) // 2 :]):
                    await self._answer(half, waiting)
                return
            self._finish(keys, waiting, answers)
        except BaseException as error:
            for key in keys:
                for future in waiting[key]:
                    if not future.done():
                        future.set_exception(error) if isinstance(error, Exception) else future.cancel()
            if not isinstance(error, Exception):
                raise

    async def _ask(self, keys: Sequence[K], waiting: Waiting[K, R]) -> Sequence[R | CacheError]:
        return await self._call(keys)

    def _finish(self, keys: Sequence[K], waiting: Waiting[K, R], answers: Sequence[R | CacheError]) -> None:
        if len(answers) != len(keys):
            raise ValueError(f"{len(keys)} questions got {len(answers)} answers.")
        callers = [waiting[key] for key in keys]
        self._told(cast("Sequence[R]", answers), list(map(len, callers)))
        for futures, result in zip(callers, answers, strict=True):
            for future in futures:
                if not future.done():
                    future.set_exception(result) if isinstance(result, CacheError) else future.set_result(result)


async def each(calls: Iterable[Awaitable[R]]) -> list[R | Unreadable]:
    """Returns the results of some calls, with `Unreadable` in place of what cannot be read. Waits for all of them, so
    that none still runs when the error of another one is raised."""
    answers: list[R | Unreadable] = []
    for answer in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(answer, BaseException) and not isinstance(answer, Unreadable):
            raise answer
        answers.append(answer)
    return answers
