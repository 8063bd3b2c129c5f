"""Which node holds each slot, as a relay has found it: a node's answers about a slot are believed while it holds it.

Two nodes may both own a slot by their own word: one that was cut off from the others, and the replica that has taken
its place. The slot map says where calls go. Holds say whose answer counts: the database names the holder, and all
instances know the same one.

What can go wrong: nobody holds a slot, for up to a second after its node has died. Then its keys are read from the
database, and all others as before.
"""

from collections.abc import Iterable, Sequence

from .node import Node
from .slot_map import SLOTS


class Holds:
    """The holder of each slot, None where there is none."""

    def __init__(self) -> None:
        self._holders: Sequence[Node | None] = [None] * SLOTS
        self._since = [0] * SLOTS
        self.changes = 0
        """How often holders have changed."""

    def holder(self, slot: int) -> Node | None:
        """Returns the holder of a slot."""
        return self._holders[slot]

    def mark(self, slot: int) -> int:
        """Returns a mark that changes when the slot gets another holder, also if it gets the same one again later."""
        return self._since[slot]

    def lost_since(self, changes: int, slots: Iterable[int]) -> set[int]:
        """Returns which of some slots had another holder since `changes` was read."""
        if changes == self.changes:
            return set()
        return {slot for slot in slots if self._since[slot] > changes}

    def become(self, holders: Sequence[Node | None]) -> None:
        """Records all holders. Calls in flight for a slot that has another one now are not believed."""
        changed = [
            slot for slot, (now, before) in enumerate(zip(holders, self._holders, strict=True)) if now is not before
        ]
        if changed:
            self.changes += 1
            for slot in changed:
                self._since[slot] = self.changes
            self._holders = list(holders)
