"""Joins the calls that are made in one tick of the event loop into one.

    one GET a request    500 requests under way: 500 round trips, and redis-py's price per command 500 times
    one MGET a tick      500 requests under way: a few round trips

Everything that crosses the network here goes through it: GETs become one MGET, lookups and fills one script call, loads
one query. A caller waits for nothing longer than for the end of the current tick.

What can go wrong: a call that fails, fails for all that it was made for.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar

K = TypeVar("K")
R = TypeVar("R")

Start = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
"""Starts a task, and keeps it: the event loop alone would let it be collected in the middle."""

LARGEST = 500
"""The most keys of one call: a longer MGET would hold up everybody else in Redis."""


class Batching(Generic[K, R]):
    """A function of many keys, called with one key at a time.

    `call` gets the distinct keys of a tick, and answers one result for each, in their order. It runs in a task that
    `start` starts.
    """

    def __init__(self, call: Callable[[Sequence[K]], Awaitable[Sequence[R]]], start: Start) -> None:
        self._call, self._start = call, start
        self._waiting: dict[K, list[asyncio.Future[R]]] = {}

    def ask(self, key: K) -> asyncio.Future[R]:
        """The result for `key`, of a call that is sent later than this: it is never older than the question."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._send)
        # A future for each caller: a shared one would be cancelled for all when one caller is.
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.setdefault(key, []).append(future)
        return future

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, {}
        keys = list(waiting)
        for start in range(0, len(keys), LARGEST):
            self._start(self._answer(keys[start : start + LARGEST], waiting))

    async def _answer(self, keys: Sequence[K], waiting: dict[K, list[asyncio.Future[R]]]) -> None:
        try:
            answers = list(zip(keys, await self._call(keys), strict=True))
        except BaseException as error:
            for key in keys:
                for future in waiting[key]:
                    if not future.done():
                        future.set_exception(error) if isinstance(error, Exception) else future.cancel()
            if not isinstance(error, Exception):
                raise
        else:
            for key, result in answers:
                for future in waiting[key]:
                    if not future.done():
                        future.set_result(result)
