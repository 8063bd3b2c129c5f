"""What was answered about each row, and so what a read that starts now must not answer."""

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field


@dataclass(slots=True)
class Row:
    """One row. Its versions rise, because only the client that removes it creates it again."""

    least: int = 0
    """No read that starts now may answer an older version, because this one was answered."""
    there: bool = False
    """Whether the row is known to exist."""
    removals: int = 0
    """How many removals were requested."""
    doubtful: bool = False
    """Whether a removal was not answered, and may still happen."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What held when a read started."""

    start: float
    least: int
    there: bool
    removals: int
    in_sql: tuple[int, float] | None


@dataclass(frozen=True, slots=True)
class Late:
    """A read that did not show a change in SQL, which was committed `behind` seconds before the read started."""

    start: float
    behind: float


@dataclass(slots=True)
class Ledger:
    """All rows, by path."""

    rows: defaultdict[str, Row] = field(default_factory=lambda: defaultdict(Row))
    in_sql: dict[str, tuple[int, float]] = field(default_factory=dict)
    """For rows that are changed in SQL: the newest version, and when it was committed."""
    late: list[Late] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    """Answers that must never be given, and were."""
    counts: Counter[str] = field(default_factory=Counter)

    def wrote(self, path: str, version: int) -> None:
        """Records that a change was answered with this version."""
        row = self.rows[path]
        row.least, row.there = max(row.least, version), True

    def removing(self, path: str) -> None:
        """Records that a removal was requested."""
        row = self.rows[path]
        row.there, row.removals = False, row.removals + 1

    def removed(self, path: str) -> None:
        """Records that it was answered. A row that is read from now on was created later."""
        self.rows[path].least += 1

    def changed_in_sql(self, path: str, version: int) -> None:
        """Records that somebody has changed a row without the application."""
        self.in_sql[path] = (version, time.monotonic())

    def expect(self, path: str) -> Expectation:
        """Returns what a read that starts now has to answer."""
        row = self.rows[path]
        there = row.there and not row.doubtful
        return Expectation(time.monotonic(), row.least, there, row.removals, self.in_sql.get(path))

    def read(self, path: str, expected: Expectation, version: int | None, source: str) -> None:
        """Checks a read that answered this version, or None if there was no such row."""
        self.counts[source.partition(";")[2].split(";")[0].strip()] += 1
        if version is None:
            if expected.there and self.rows[path].removals == expected.removals:
                self.stale.append(f"{path} is there, and was not found ({source}).")
        elif version < expected.least:
            self.stale.append(f"{path} is in version {expected.least}, and was read in {version} ({source}).")
        elif expected.in_sql is not None and version < expected.in_sql[0]:
            self.late.append(Late(expected.start, expected.start - expected.in_sql[1]))
