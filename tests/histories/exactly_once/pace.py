"""An open loop: a fixed rate of calls, whatever becomes of the earlier ones."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from tests.histories.exactly_once.application import Connection

Call = Callable[[Connection], Awaitable[None]]


@asynccontextmanager
async def paced(url: str, rate: float, call: Call) -> AsyncIterator[None]:
    """Calls while the block lasts, each on a connection that no other call uses. At its end, all are answered."""
    idle: deque[Connection] = deque()
    over = asyncio.Event()

    async def one() -> None:
        connection = idle.popleft() if idle else await Connection.to(url)
        await call(connection)
        idle.append(connection)

    async def keep_pace(group: asyncio.TaskGroup) -> None:
        began, number = time.monotonic(), 0
        while not over.is_set():
            group.create_task(one())
            number += 1
            # A delay is caught up later.
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(keep_pace(group))
            yield
            over.set()
    finally:
        for connection in idle:
            await connection.close()
