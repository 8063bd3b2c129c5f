"""Tasks that belong to a part of the application, not to a reader: a reader that goes away does not stop them."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

T = TypeVar("T")


class Background:
    """Keeps tasks until they end, and waits for the last of them at the end of its `async with`.

    Nothing is cancelled: Redis may still execute a command that was cancelled on its way. Each task is bounded by the
    deadlines of Redis and the database, and tasks that wait for others check `closing`.
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
        """Accepts tasks from now on."""
        self.is_open, self.closing = True, False

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs work to its end even if the caller goes away, and returns its result."""
        task = self.start(work)
        # Marks the error as retrieved: the caller may be gone, and it was reported where it was raised.
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(task)

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Starts a task, and keeps a reference to it: otherwise it could be garbage-collected while it runs."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
