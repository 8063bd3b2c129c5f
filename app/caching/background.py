"""Tasks that belong to a part of the application, and to no reader: who goes away does not stop them."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

T = TypeVar("T")


class Background:
    """Keeps tasks until they end, and waits for the last of them at the end of its `async with`.

    Nothing is cancelled: a command that was cancelled on its way may still be carried out. Each task is bounded by the
    deadlines of Redis and of the database, and those that wait for others look whether it is `closing`.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self.is_open = self.closing = False

    async def __aenter__(self) -> Self:
        self.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.is_open, self.closing = False, True
        while self._tasks:
            await asyncio.wait(self._tasks)

    def open(self) -> None:
        """It takes tasks now."""
        self.is_open, self.closing = True, False

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Does work to its end, also when whoever asked for it goes away."""
        task = self.start(work)
        # When nobody is left to hear of an error, it was reported where it came up.
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(task)

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Starts a task, and keeps it: the event loop alone would let it be collected in the middle."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
