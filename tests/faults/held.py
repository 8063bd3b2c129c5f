"""A gate on a wire: what matches waits at it, so that a test can let something else happen first."""

import asyncio
from collections.abc import Callable, Sequence

from tests.faults.matching import Pattern, matching


class Held:
    """A gate for the commands or statements that match a pattern, or for the answers to them."""

    def __init__(self, pattern: Pattern, released: Callable[[], None]) -> None:
        self._matches = matching(pattern)
        self._released = released
        self._open = False
        self.arrived = asyncio.Event()
        """Set when the first one stands at the gate. A command: the server knows nothing of it yet. An answer: the
        server has carried the command out."""

    def release(self) -> None:
        """Lets all of them pass, those that come later as well."""
        self._open = True
        self._released()

    def halts(self, texts: Sequence[str]) -> bool:
        """Whether this may not pass yet; then it has arrived."""
        halts = self.waits_for(texts)
        if halts:
            self.arrived.set()
        return halts

    def waits_for(self, texts: Sequence[str]) -> bool:
        """Whether it would halt this."""
        return not self._open and any(map(self._matches, texts))
