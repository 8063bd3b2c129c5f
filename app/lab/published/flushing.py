"""The loop behind the write-behind variants: a pass, and a pause when there was nothing to flush."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta


@asynccontextmanager
async def flushing(flush: Callable[[], Awaitable[int]], interval: timedelta) -> AsyncIterator[None]:
    """Calls `flush`, which returns how much it flushed, while the block lasts; after an empty pass it waits for
    `interval`. At the end of the block it flushes until nothing is left, and raises what a pass raised."""
    stop = asyncio.Event()

    async def loop() -> None:
        while not stop.is_set():
            if not await flush():
                try:
                    await asyncio.wait_for(stop.wait(), interval.total_seconds())
                except TimeoutError:
                    continue

    task = asyncio.create_task(loop())
    try:
        yield
    except BaseException:
        # A block that ended with an exception flushes no more.
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise
    stop.set()
    await task
    while await flush():
        continue
