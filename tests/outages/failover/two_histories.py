"""Rows of users and products in a database that lost its last commits in a failover: what was written and read, and
what a read must not have answered.

    old history    ends when the old primary is dead; what the standby lacks of it is lost
    new history    begins with what the standby kept

Reads that say of themselves that they may be old are not recorded. Each row has one writer, and each of its writes has
another name: a name identifies the write that a read has seen, and a version gives the order within one history.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from app.caching import SETTLED
from tests.histories.identity.state import State


@dataclass(frozen=True, slots=True)
class Write:
    """A write: when it began, and when it was answered with which version."""

    began: float
    answered: float | None = None
    version: int = 0


@dataclass(frozen=True, slots=True)
class Read:
    """A read of a row: what it answered, and how."""

    began: float
    ended: float
    name: str
    version: int
    how: str


@dataclass(frozen=True, slots=True)
class Failover:
    """When the old primary was dead, when the first name led to the new one, and what that one `kept`."""

    dead: float
    moved: float
    kept: State

    @property
    def known(self) -> float:
        """When no instance may trust what it knew of the old primary, by the clock alone."""
        return self.dead + SETTLED.total_seconds()


@dataclass(slots=True)
class TwoHistories:
    """All writes and reads, by the key of the row."""

    writes: defaultdict[str, dict[str, Write]] = field(default_factory=lambda: defaultdict(dict))
    reads: defaultdict[str, list[Read]] = field(default_factory=lambda: defaultdict(list))

    def began_with(self, state: State) -> None:
        """Records the rows that exist at the beginning."""
        for key, found in state.rows.items():
            self.writes[key][found.name] = Write(0.0, 0.0, found.version)

    def lost(self, failover: Failover) -> dict[str, set[str]]:
        """Returns the names that were answered, and that the new history lacks."""
        return {
            key: {
                name
                for name, write in writes.items()
                # What was answered before any name led to the new primary was written to the old one.
                if write.answered is not None
                and write.answered < failover.moved
                and write.version > failover.kept.rows[key].version
            }
            for key, writes in self.writes.items()
        }

    def check(self, failover: Failover) -> list[str]:
        """Returns what was answered wrongly."""
        lost = self.lost(failover)
        return [
            f"{key} was read as {read.name!r} in version {read.version} ({read.how}), {read.began - failover.dead:.3f}"
            f" to {read.ended - failover.dead:.3f} s after the failover: {why}"
            for key, reads in self.reads.items()
            for read in reads
            for why in self._faults(key, read, failover, lost[key])
        ]

    def _faults(self, key: str, read: Read, failover: Failover, lost: set[str]) -> Iterator[str]:
        if read.name not in self.writes[key]:
            yield "nobody has written that"
        late = read.began >= failover.known
        if late and read.ended <= failover.moved:
            yield "no Postgres could verify it"
        if late and read.name in lost:
            yield "the database has lost that"
        elif read.version < (least := self._least(key, read, failover)):
            yield f"version {least} was answered before"

    def _least(self, key: str, read: Read, failover: Failover) -> int:
        """Returns the oldest version that this read may have answered."""
        before = [
            write
            for write in self.writes[key].values()
            if write.answered is not None and write.answered < read.began and write.version
        ]
        kept = failover.kept.rows[key].version
        of_old = max(write.version for write in before if write.answered is not None and write.began < failover.dead)
        if read.ended <= failover.moved:
            return of_old
        if read.began < failover.known:
            return min(kept, of_old)
        return max([kept, *(write.version for write in before if write.began >= failover.dead)])
