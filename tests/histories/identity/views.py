"""Which views were answered, and what a database must have of them: each page is viewed once.

answered        the view is there in the end, once, unless the database has lost it
an error        the view is there once, or not at all
"""

import time
from dataclasses import dataclass, field

from tests.histories.identity.state import State


@dataclass(slots=True)
class Views:
    """All pages of one history."""

    sent: set[str] = field(default_factory=set)
    answered: dict[str, float] = field(default_factory=dict)
    """When each was answered."""
    may_be_lost: set[str] = field(default_factory=set)

    def view(self, page: str) -> None:
        """Records that the page is about to be viewed."""
        self.sent.add(page)

    def took(self, page: str) -> None:
        """Records that the view was answered."""
        self.answered[page] = time.monotonic()

    def lost(self, kept: State, had: State | None) -> None:
        """Records that the database that `had` these pages is gone, and that all clients know it; the next one has
        `kept`. If nobody knows what it had, it may have had everything that was sent."""
        # Views that are answered from now on are flushed to the database that is now believed.
        self.may_be_lost |= (self.sent if had is None else set(had.pages)) - set(kept.pages)

    def lacking(self, state: State) -> set[str]:
        """Returns the pages whose view was answered, is missing, and is not excused."""
        return set(self.answered) - set(state.pages) - self.may_be_lost

    def check(self, state: State) -> list[str]:
        """Returns what is wrong with what the database has in the end."""
        return [
            *(f"{page} was answered, and is not counted." for page in sorted(self.lacking(state))),
            *(f"{page} was viewed once, and is counted {n} times." for page, n in state.pages.items() if n != 1),
            *(f"{page} was never viewed." for page in sorted(set(state.pages) - self.sent)),
        ]
