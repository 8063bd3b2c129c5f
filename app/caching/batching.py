"""Joins the calls that are made in one tick of the event loop into one.

    one GET a request    500 requests under way: 500 round trips, and redis-py's price per command 500 times
    one MGET a tick      500 requests under way: a few round trips

Everything that crosses the network here goes through it: GETs become one MGET, lookups and fills one script call, loads
one query. A caller waits for nothing longer than for the end of the current tick.

What can go wrong: a call that fails, fails for all that it was made for. `Unreadable` in place of a result is raised
for its own key, and the others get theirs. So do they when a call raises `ValueError`: it is made again by halves.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Generic, TypeVar, cast

from .errors import Unreadable

K = TypeVar("K")
R = TypeVar("R")

Start = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
"""Starts a task, and keeps it: the event loop alone would let it be collected in the middle."""

LARGEST = 500
"""The most keys of one call: a longer MGET would hold up everybody else in Redis."""


class Batching(Generic[K, R]):
    """A function of many keys, called with one key at a time.

    `call` gets the distinct keys of a tick, and answers one result for each, in their order. It runs in a task that
    `start` starts. `told` gets those results, and how many callers get each, before they get them.
    """

    def __init__(
        self,
        call: Callable[[Sequence[K]], Awaitable[Sequence[R | Unreadable]]],
        start: Start,
        told: Callable[[Sequence[R], Sequence[int]], None] = lambda results, callers: None,
    ) -> None:
        self._call, self._start, self._told = call, start, told
        self._waiting: dict[K, list[asyncio.Future[R]]] = {}
        self._alone = False

    def ask(self, key: K) -> asyncio.Future[R]:
        """The result for `key`, of a call that is sent later than this: it is never older than the question."""
        if not self._waiting:
            # A task begins at the end of this tick, when all who ask in it have asked.
            self._start(self._send())
        # A future for each caller: a shared one would be cancelled for all when one caller is.
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        others = self._waiting.get(key)
        if others is None:
            self._waiting[key] = [future]
        else:
            others.append(future)
        return future

    def ask_here(self, key: K) -> Awaitable[R]:
        """The same, for a call that may be broken off with its caller: it needs no task where nobody else asks.

        Whoever was alone with the last call is likely to be alone with this one.
        """
        if not self._alone:
            return self.ask(key)
        self._alone = False  # Whoever comes while this is under way joins others.
        return self._ask_alone(key)

    async def _ask_alone(self, key: K) -> R:
        answers = await self._call([key])
        self._alone = True
        self._told(cast("Sequence[R]", answers), [1])
        if isinstance(answers[0], Unreadable):
            raise answers[0]
        return answers[0]

    async def _send(self) -> None:
        waiting, self._waiting = self._waiting, {}
        keys = list(waiting)
        self._alone = len(keys) == 1 == len(waiting[keys[0]])
        for start in range(LARGEST, len(keys), LARGEST):
            self._start(self._answer(keys[start : start + LARGEST], waiting))
        await self._answer(keys[:LARGEST], waiting)

    async def _answer(self, keys: Sequence[K], waiting: dict[K, list[asyncio.Future[R]]]) -> None:
        try:
            try:
                answers = await self._call(keys)
            except ValueError:
                if len(keys) == 1:
                    raise
                # One of them cannot even be asked for. That is its caller's own mistake, and it is found by halves.
                for half in (keys[: len(keys) // 2], keys[len(keys) // 2 :]):
                    await self._answer(half, waiting)
                return
            if len(answers) != len(keys):
                raise ValueError(f"{len(keys)} questions got {len(answers)} answers.")
            callers = [waiting[key] for key in keys]
            self._told(cast("Sequence[R]", answers), list(map(len, callers)))
        except BaseException as error:
            for key in keys:
                for future in waiting[key]:
                    if not future.done():
                        future.set_exception(error) if isinstance(error, Exception) else future.cancel()
            if not isinstance(error, Exception):
                raise
        else:
            for futures, result in zip(callers, answers, strict=True):
                for future in futures:
                    if not future.done():
                        future.set_exception(result) if isinstance(result, Unreadable) else future.set_result(result)


async def each(calls: Iterable[Awaitable[R]]) -> list[R | Unreadable]:
    """The answers to some calls, with `Unreadable` in place of what is. All are waited for, so that none goes on behind
    the answer when another one fails."""
    answers: list[R | Unreadable] = []
    for answer in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(answer, BaseException) and not isinstance(answer, Unreadable):
            raise answer
        answers.append(answer)
    return answers
