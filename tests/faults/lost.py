"""An answer that is to be lost on a wire, so that the client cannot know what became of its command."""

import asyncio
from collections.abc import Sequence

from tests.faults.matching import Pattern, matching


class Lost:
    """The next answer to a command or statement that matches a pattern; with `cuts`, its connection is cut, too."""

    def __init__(self, pattern: Pattern, *, cuts: bool) -> None:
        self._matches = matching(pattern)
        self.cuts = cuts
        self.dropped = asyncio.Event()
        """Set when the answer has come, and is lost."""

    def waits_for(self, texts: Sequence[str]) -> bool:
        """Whether the answer to these would be lost."""
        return any(map(self._matches, texts))
