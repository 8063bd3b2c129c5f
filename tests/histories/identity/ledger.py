"""What was answered about each user and product, and so what a read must not answer, even when the database has lost
something meanwhile.

    write answered          no read that begins now is older
    the database loses      `kept` is what it has in the end; until a second after the heal, a read may answer what was
                            written before, or what is kept, but nothing from before once something newer was answered
    settled                 what was lost is never read again, and no read is older than what the database had then

Each row has one writer, and each of its writes has another name. So a name identifies the write that a read has seen,
and versions, which rise only within one history of the database, give the order.
"""

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from tests.histories.identity.state import State


@dataclass(slots=True)
class Write:
    """One write of a row: when it began, when it was answered, and the version in the answer."""

    began: float
    answered: float | None = None
    version: int = 0


@dataclass(slots=True)
class Row:
    """One row: its writes by name, and the oldest version that a read which begins now may answer."""

    writes: dict[str, Write] = field(default_factory=dict)
    least: int = 0
    lost: set[str] = field(default_factory=set)
    """The writes that the database has lost for good."""
    newest_began: float = 0.0
    """When the newest of the answered writes began."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What held when a read began."""

    began: float
    least: int
    newest_began: float
    era: int


@dataclass(slots=True)
class Ledger:
    """All rows, by resource and key."""

    rows: defaultdict[str, Row] = field(default_factory=lambda: defaultdict(Row))
    wrong: list[str] = field(default_factory=list)
    """Answers that must never be given, and were."""
    counts: Counter[str] = field(default_factory=Counter)
    exempt: list[tuple[float, float]] = field(default_factory=list)
    """Periods after a Redis went back silently, in which that need not have been noticed."""
    _kept: State | None = None
    _without_triggers: bool = False
    _lossy_since: float = 0.0
    _era: int = 0
    """Odd while the database loses something."""

    @property
    def losing(self) -> bool:
        """Whether the database is losing something now."""
        return self._era % 2 == 1

    def knows(self, state: State) -> None:
        """Records the rows that exist at the beginning."""
        for key, found in state.rows.items():
            self.rows[key].writes[found.name] = Write(0.0, 0.0, found.version)
            self.rows[key].least = found.version

    def writing(self, key: str, name: str) -> None:
        """Records that a write begins."""
        self.rows[key].writes[name] = Write(time.monotonic())

    def wrote(self, key: str, name: str, version: int) -> None:
        """Records that the write was answered."""
        row = self.rows[key]
        write = row.writes[name]
        write.answered, write.version = time.monotonic(), version
        row.newest_began = max(row.newest_began, write.began)
        # A write that began while the database was losing something may be lost with it.
        if not self.losing and write.began > self._lossy_since:
            row.least = max(row.least, version)
        self.counts["written"] += 1

    def loses(self, kept: State, *, without_triggers: bool) -> None:
        """Records that the database is about to go back to `kept`. For a moment its rows may be `without_triggers`: a
        write then gets the version of the previous one, and leaves no trace until it is lost itself."""
        self._kept, self._without_triggers = kept, without_triggers
        self._lossy_since, self._era = time.monotonic(), self._era + 1

    def settled(self, state: State, looked: float) -> None:
        """Records that the loss is complete, and known to all. The database had this `state` after `looked`."""
        assert self._kept is not None
        for key, row in self.rows.items():
            kept, now = self._kept.rows[key], state.rows[key]
            row.lost |= {
                name
                for name, write in row.writes.items()
                if write.answered is not None and write.answered < self._lossy_since and write.version > kept.version
            }
            answered = row.writes[now.name].answered
            # A read need not know of a write that has not been answered yet.
            row.least = now.version if answered is not None and answered < looked else kept.version
        self._lossy_since, self._era = time.monotonic(), self._era + 1

    def expect(self, key: str) -> Expectation:
        """Returns what a read that begins now has to answer."""
        row = self.rows[key]
        return Expectation(time.monotonic(), row.least, row.newest_began, self._era)

    def read(self, key: str, expected: Expectation, name: str | None, version: int, how: str) -> None:
        """Checks the answer of a read; `name` is None if there was no row. `how` says who answered, and how."""
        row, ended = self.rows[key], time.monotonic()
        self.counts["reads"] += 1
        strict = expected.era == self._era and not self.losing
        if any(expected.began < until and ended > since for since, until in self.exempt):
            self.counts["exempt"] += 1
        elif name is None:
            if strict:
                self._wrong(key, expected, "was not found", how)
        elif name not in row.writes:
            self._wrong(key, expected, f"was {name!r}, which nobody has written", how)
        elif strict and name in row.lost:
            self._wrong(key, expected, f"was {name!r}, which the database has lost", how)
        elif strict and version < expected.least:
            self._wrong(key, expected, f"was {name!r} in version {version}, and {expected.least} was answered", how)
        elif not strict:
            self._check_while_losing(key, expected, name, version, how)

    def _check_while_losing(self, key: str, expected: Expectation, name: str, version: int, how: str) -> None:
        self.counts["while losing"] += 1
        assert self._kept is not None
        kept, write = self._kept.rows[key], self.rows[key].writes[name]
        since = self._lossy_since
        if version < min(kept.version, expected.least):
            self._wrong(key, expected, f"was {name!r} in version {version}, and {kept} was kept", how)
        elif (
            self.losing
            and not self._without_triggers
            and write.answered is not None
            and write.answered < since < expected.newest_began
            and write.version > kept.version
        ):
            self._wrong(key, expected, f"was {name!r}, and what was written since the loss began was answered", how)

    def _wrong(self, key: str, expected: Expectation, what: str, how: str) -> None:
        if len(self.wrong) < 30:
            last = list(self.rows[key].writes.items())[-4:]
            self.wrong.append(
                f"{expected.began:.3f} to {time.monotonic():.3f}: {key} {what} ({how}); lossy since"
                f" {self._lossy_since:.3f}; written last: {last}"
            )
        self.counts["wrong"] += 1
