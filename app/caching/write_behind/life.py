"""How a total says in which life of Redis it was true. A total of any other life is not read, and is built anew.

    one Redis    in its name: a Redis that has restarted may have lost the last additions
    a cluster    in its value, because a slot may come back to a node whose life has not ended:

        the slot of P moves from A to B      P's total of A's life moves along
        B accepts an addition to P           under a name with B's life, it would not touch that total
        the slot moves back to A             A would read its total again, without the addition

So in a cluster a total has one name. Each addition to its key changes it, or deletes it if it is of another life.

What can go wrong: a node loses such an addition, and the deletion with it, after a flusher has counted it. If the slot
then moves back, the total lacks that addition for up to an hour.
"""

from typing import NamedTuple

ANY = "cluster"
"""Stands in the name of a total that has its life in its value."""


class Life(NamedTuple):
    """One life of Redis, in the names of totals (`name`) and in front of their amounts (`tag`)."""

    name: str | None
    tag: str = ""
