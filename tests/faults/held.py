"""A gate on a wire: matching messages wait at it, so that a test can let something else happen first."""

import asyncio
from collections.abc import Callable, Sequence

from tests.faults.matching import Pattern, matching


class Held:
    """A gate for the commands or statements that match a pattern, or for the answers to them."""

    def __init__(self, pattern: Pattern, released: Callable[[], None]) -> None:
        self._matches = matching(pattern)
        self._released = released
        self._open = False
        self.then: Callable[[], None] = lambda: None
        """Called when the first message arrives, before anything else can happen."""
        self.arrived = asyncio.Event()
        """Set when the first message waits at the gate. A held command has not reached the server yet. A held answer is
        to a command that the server has executed."""

    def release(self) -> None:
        """Lets all of them pass, including those that come later."""
        self._open = True
        self._released()

    def halts(self, texts: Sequence[str]) -> bool:
        """Whether this must not pass yet; if so, it counts as arrived."""
        halts = self.waits_for(texts)
        if halts and not self.arrived.is_set():
            self.arrived.set()
            self.then()
        return halts

    def waits_for(self, texts: Sequence[str]) -> bool:
        """Whether the gate would halt this."""
        return not self._open and any(map(self._matches, texts))
