"""The loop behind the write-behind variants: a pass, and a pause when there was nothing to carry."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta


@asynccontextmanager
async def flushing(flush: Callable[[], Awaitable[int]], interval: timedelta) -> AsyncIterator[None]:
    """Calls `flush`, which answers how much it carried, while the block lasts; after a pass without anything it waits
    for `interval`. At the end of the block it carries until nothing is left, and raises what a pass has raised."""
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
        # A block that was left in the middle carries nothing on.
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise
    stop.set()
    await task
    while await flush():
        continue
