"""Which views were answered, and what a database must have of them: each page is viewed once.

answered        it is there in the end, once; unless a loss of the database has taken it
an error        it is there once, or not at all
"""

import time
from dataclasses import dataclass, field

from tests.histories.identity.state import State


@dataclass(slots=True)
class Views:
    """All pages of one history."""

    sent: set[str] = field(default_factory=set)
    answered: dict[str, float] = field(default_factory=dict)
    """And when."""
    may_be_lost: set[str] = field(default_factory=set)

    def view(self, page: str) -> None:
        """It is about to be viewed."""
        self.sent.add(page)

    def took(self, page: str) -> None:
        """That was answered."""
        self.answered[page] = time.monotonic()

    def lost(self, kept: State, had: State | None) -> None:
        """The database that `had` these pages is gone, and all the world knows it; `kept` were those that the next one
        has. Where nobody knows what it had, it may have had all that was sent."""
        # What is answered from now on is carried to the database that is believed now.
        self.may_be_lost |= (self.sent if had is None else set(had.pages)) - set(kept.pages)

    def lacking(self, state: State) -> set[str]:
        """What was answered, is not there, and is not excused."""
        return set(self.answered) - set(state.pages) - self.may_be_lost

    def check(self, state: State) -> list[str]:
        """What is wrong with what the database has in the end."""
        return [
            *(f"{page} was answered, and is not counted." for page in sorted(self.lacking(state))),
            *(f"{page} was viewed once, and is counted {n} times." for page, n in state.pages.items() if n != 1),
            *(f"{page} was never viewed." for page in sorted(set(state.pages) - self.sent)),
        ]
