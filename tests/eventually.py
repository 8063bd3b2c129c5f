"""Waiting for a condition, with a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable

PATIENCE = 60.0
"""Seconds after which an expected event counts as missing: generous, because the machine may be busy."""
PAUSE = 0.01


async def eventually(condition: Callable[[], Awaitable[bool]]) -> float:
    """Polls until `condition` holds, and returns how many seconds that took. Fails after `PATIENCE`."""
    began = time.monotonic()
    while not await condition():
        assert time.monotonic() - began < PATIENCE, "It did not happen in time."
        await asyncio.sleep(PAUSE)
    return time.monotonic() - began
