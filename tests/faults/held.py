"""A gate on a wire: what matches waits at it, so that a test can let something else happen first."""

import asyncio
import re


class Held:
    """A gate for the statements that match a pattern."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.arrived = asyncio.Event()
        """Set when the first such statement stands at the gate: Postgres knows nothing of it yet."""
        self._released = asyncio.Event()

    def release(self) -> None:
        """Lets all of them pass, those that come later as well."""
        self._released.set()

    async def passed(self, statement: str) -> None:
        """Returns when this statement may go on."""
        if re.search(self.pattern, statement, re.DOTALL):
            self.arrived.set()
            await self._released.wait()
