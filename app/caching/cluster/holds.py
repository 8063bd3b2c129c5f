"""Which node holds each slot, as a relay has found it: a node's answers about a slot are believed while it holds it.

Two nodes may both own a slot by their own word: one that was cut off from the others, and the replica that has taken
its place. The slot map says where calls go. Holds say whose answer counts: the database names the holder, and all
instances know the same one.

What can go wrong: nobody holds a slot, for a while after its node has died. Then its keys are read from the database,
and all others as before.
"""

from collections.abc import Collection, Iterable, Sequence

from .node import Node
from .slot_map import SLOTS


class Holds:
    """The holder of each slot, None where there is none."""

    def __init__(self) -> None:
        self._holders: Sequence[Node | None] = [None] * SLOTS
        self._since = [0] * SLOTS
        self._gained: set[int] = set()
        """Slots whose holder is not believed about them yet."""
        self.changes = 0
        """How often holders have changed."""

    def holder(self, slot: int) -> Node | None:
        """Returns the holder of a slot, believed or not: calls about the slot go there."""
        return self._holders[slot]

    def believes(self, slot: int, node: Node) -> bool:
        """Whether a node is the holder of a slot, and was told of every change there since it is."""
        return self._holders[slot] is node and slot not in self._gained

    def mark(self, slot: int) -> int:
        """Returns a mark that changes when the slot gets another holder, also if it gets the same one again later."""
        return self._since[slot]

    def lost_since(self, changes: int, slots: Iterable[int]) -> set[int]:
        """Returns which of some slots had another holder since `changes` was read."""
        if changes == self.changes:
            return set()
        return {slot for slot in slots if self._since[slot] > changes}

    def become(self, holders: Sequence[Node | None]) -> None:
        """Records all holders. Calls in flight for a slot that has another one now are not believed. Nor is the new one
        before `told`: what it is trusted for is older than its hold.

            Y is trusted, and has an old value from when it held the slot       X holds it, and is not told of a change
            Y gets the slot back: R would hit the old value before Y is told
        """
        pairs = enumerate(zip(holders, self._holders, strict=True))
        changed = [slot for slot, (now, before) in pairs if now is not before]
        if changed:
            self.changes += 1
            self._gained.update(changed)
            for slot in changed:
                self._since[slot] = self.changes
            self._holders = list(holders)

    def told(self, nodes: Collection[Node]) -> None:
        """Records that these nodes were told of every change in the slots that they hold."""
        if self._gained:
            self._gained = {slot for slot in self._gained if self._holders[slot] not in nodes}
