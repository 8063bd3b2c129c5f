"""The oracle knows what was written and committed. So it knows whether each read was stale, and by exactly how much,
and whether each write was lost or counted twice.

    a value   every write has a different one, so a value that is read identifies its write. The journal has the order
              in which the database had them.
    a count   every write adds one. A read that began after n additions were acknowledged, and returns less, is stale.

        W writes 7, and is acknowledged                      R begins, and gets 6: stale, since that
                                                             acknowledgement

A read that began earlier may get either: both are right. So no verdict depends on which of the two was quicker.
(Herlihy and Wing, "Linearizability", TOPLAS 1990: only the order of operations that do not overlap counts.)

What can go wrong: the journal uses the database's clock. A value counts as uncommitted only if it was read before the
database can have had it, whichever way the two clocks differ.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import accumulate, groupby

from app.lab.comparison.journal import Noted
from app.lab.strategy import Holds

NEVER = float("inf")


@dataclass(slots=True)
class Write:
    """A write: when it began, in seconds of this process' clock, and when it was acknowledged, if it was."""

    value: int
    began: float
    acknowledged: float = NEVER


@dataclass(frozen=True, slots=True)
class Read:
    """A read: its answer, and when it began and ended."""

    value: int | None
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was wrong. `longest_stale` is the longest time since a newer value had been acknowledged."""

    stale: int = 0
    longest_stale: timedelta = timedelta(0)
    uncommitted: int = 0
    lost: int = 0
    doubled: int = 0

    def __add__(self, other: "Verdict") -> "Verdict":
        return Verdict(
            self.stale + other.stale,
            max(self.longest_stale, other.longest_stale),
            self.uncommitted + other.uncommitted,
            self.lost + other.lost,
            self.doubled + other.doubled,
        )


@dataclass(slots=True)
class History:
    """What happened to one key, whose first value is 0."""

    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)


class Oracle:
    """Records what each key was asked and answered, and judges it at the end."""

    def __init__(self, holds: Holds, *, later: bool = False) -> None:
        """With `later`, a value may be read before the database has it, if the database eventually gets it or a newer
        one."""
        self.holds, self._later = holds, later
        self.histories: dict[str, History] = {}

    def begin(self, key: str, value: int, at: float) -> Write:
        """Records a write that begins `at`, in seconds of `time.monotonic`. The caller sets in the result when it was
        acknowledged."""
        write = Write(value, at)
        self._of(key).writes.append(write)
        return write

    def read(self, key: str, value: int | None, began: float, ended: float) -> None:
        """Records a read that returned `value`."""
        self._of(key).reads.append(Read(value, began, ended))

    def judge(
        self, journal: Mapping[str, Sequence[Noted]], finals: Mapping[str, int], clock: tuple[float, float]
    ) -> Verdict:
        """Returns what was wrong, after everything has settled. `finals` is what the database has at the end; `clock`
        is how far its clock is ahead of this process', and the largest possible error of that."""
        verdict = Verdict()
        for key, history in self.histories.items():
            if self.holds is Holds.COUNTS:
                verdict += _judge_count(history, finals.get(key, 0))
            else:
                verdict += _judge_values(history, journal.get(key, ()), finals.get(key, 0), clock, later=self._later)
        return verdict

    def _of(self, key: str) -> History:
        return self.histories.setdefault(key, History())


def _judge_count(history: History, final: int) -> Verdict:
    acknowledged = sorted(write.acknowledged for write in history.writes if write.acknowledged < NEVER)
    begun = sorted(write.began for write in history.writes)
    stale, longest, uncommitted = 0, 0.0, 0
    for read in history.reads:
        value = read.value or 0
        if value < bisect_left(acknowledged, read.began):
            stale += 1
            longest = max(longest, read.began - acknowledged[value])
        elif value > bisect_left(begun, read.ended):
            uncommitted += 1
    return Verdict(
        stale,
        timedelta(seconds=longest),
        uncommitted,
        max(0, len(acknowledged) - final),
        max(0, final - len(begun)),
    )


def _judge_values(
    history: History, noted: Sequence[Noted], final: int, clock: tuple[float, float], *, later: bool
) -> Verdict:
    writes = {write.value: write for write in history.writes}
    ahead, wrong = clock
    values = [0, *(each.value for each in noted)]
    # A value that is in the journal more than once counts from its last place: until then it may well be read.
    places = {value: place for place, value in enumerate(values)}
    since = {each.value: each.at for each in reversed(noted)}  # The first time that it was there.
    # The moment from which the value of a place is known to be old: a value of a later place has been acknowledged.
    known = [writes[value].acknowledged if value in writes else NEVER for value in values]
    old_since = [*list(accumulate(reversed(known), min))[-2::-1], NEVER]
    # A value that is not in the journal was merged with a later write, or lost. Its place in the order is known only
    # relative to the writes that it did not overlap with.
    unplaced = _Later(write for write in history.writes if write.value not in places)
    all_ = _Later(history.writes)
    # The database's last value may be an old one: then every write that began after its acknowledgement is lost. A
    # write that was merged with a later one on its way is not lost.
    last = writes[final].acknowledged if final in writes else 0.0
    stale, longest, uncommitted = 0, 0.0, 0
    for read in history.reads:
        place = None if read.value is None else places.get(read.value)
        own = writes[read.value].acknowledged if read.value in writes else 0.0 if read.value == 0 else NEVER
        if place is None:
            uncommitted += not later or read.value not in writes or writes[read.value].began > last
            old = all_.known(own)
        else:
            uncommitted += not later and bool(read.value) and read.ended + ahead + wrong < since[values[place]]
            old = min(old_since[place], unplaced.known(own))
        if old < read.began:
            stale += 1
            longest = max(longest, read.began - old)
    acknowledged = [write for write in history.writes if write.acknowledged < NEVER]
    # Only a strategy that writes later may merge: with all others the database has each value, if only for a moment.
    lost = sum(1 for write in acknowledged if write.began > last or not (later or write.value in places))
    return Verdict(stale, timedelta(seconds=longest), uncommitted, lost, _returned(each.value for each in noted))


def _returned(values: Iterable[int]) -> int:
    """Counts how often a value came back after another one. Twice in a row is harmless: setting a value is
    idempotent."""
    in_order = [value for value, _same in groupby(values)]
    return len(in_order) - len(set(in_order))


class _Later:
    """Writes, indexed by when they began: of those after some moment, it finds the first acknowledgement."""

    def __init__(self, writes: Iterable[Write]) -> None:
        in_order = sorted(writes, key=lambda write: write.began)
        self._began = [write.began for write in in_order]
        self._known = list(accumulate((write.acknowledged for write in reversed(in_order)), min))[::-1]

    def known(self, moment: float) -> float:
        """Returns the first acknowledgement of a write that began after `moment`; `NEVER` when there is none."""
        place = bisect_right(self._began, moment)
        return self._known[place] if place < len(self._known) else NEVER
