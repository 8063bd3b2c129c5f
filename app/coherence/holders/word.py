"""What a node of a cluster says of itself: its id, its role, and the slots that it owns.

    a primary that owns the slot           it may hold it
    a primary that does not own it         it has given the slot away, and answers MOVED
    a replica, or cut off from the most    its word counts as silence: another node may own the slot

What can go wrong: a node that was cut off has not noticed it yet, and says that it owns what another one owns by now.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from app.caching.cluster.call import packed

QUESTIONS = [packed(("INFO", "replication")), packed(("CLUSTER", "INFO")), packed(("CLUSTER", "NODES"))]
MYSELF = re.compile(rb"^(\w+) \S+ \S*myself\S* \S+ \d+ \d+ (\d+) \S+ ?(.*)$", re.MULTILINE)
OWNED, LEAVING = re.compile(r"(?:^| )(\d+)(?:-(\d+))?(?= |$)"), re.compile(r"\[(\d+)->-")


@dataclass(frozen=True, slots=True)
class Word:
    """What one node has said: its id, its replication id, whether it is a primary, whether its cluster works as it sees
    it, the epoch of its configuration, and its slots as it writes them."""

    id: str
    replication: str
    is_primary: bool
    works: bool
    epoch: int
    slots: str

    @classmethod
    def read(cls, answers: Sequence[Any]) -> "Word":
        """Reads the answers to `QUESTIONS`. Raises the error that stands in place of one."""
        for answer in answers:
            if isinstance(answer, ResponseError):
                raise answer
        told, state, nodes = answers
        myself = MYSELF.search(nodes)
        replication = re.search(rb"^master_replid:(\w+)", told, re.MULTILINE)
        if myself is None or replication is None:
            raise ResponseError("It is no node of a cluster.")
        id_, epoch, slots = myself.groups()
        return cls(
            id=id_.decode(),
            replication=replication[1].decode(),
            is_primary=b"role:master" in told,
            works=b"cluster_state:ok" in state,
            epoch=int(epoch),
            slots=slots.decode().strip(),
        )

    @property
    def counts(self) -> bool:
        """Whether its word about its slots counts."""
        return self.is_primary and self.works

    def owned(self) -> Iterator[tuple[int, int]]:
        """Yields the first and the last slot of each range that it owns."""
        for first, last in OWNED.findall(self.slots):
            yield int(first), int(last or first)

    def kept(self) -> set[int]:
        """Returns the slots that it owns, and does not move away."""
        owned = {slot for first, last in self.owned() for slot in range(first, last + 1)}
        return owned - set(map(int, LEAVING.findall(self.slots)))
