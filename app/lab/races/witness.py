"""Watches one schedule, and finds what is wrong with what was read and with what was left.

    a read returns no number older than one acknowledged before it began, and none that is not committed
    in the end the database has what was acknowledged, once, and a read returns what the database has

The database decides which of two values is older; for strategies that write later, the order of the writes decides, so
these must not overlap. A write in doubt (its answer was lost, or its writer died) may count or not.
"""

from dataclasses import dataclass, field

from app.lab.anomaly import Anomaly
from app.lab.strategy import Holds


@dataclass(slots=True)
class Witness:
    """What was begun, committed and acknowledged for one key, whose first number is 0, in version 1."""

    holds: Holds
    behind: bool
    """Whether the database gets writes later; then a read may return a number that it does not have yet."""
    found: dict[Anomaly, str] = field(default_factory=dict)
    _places: dict[int, int] = field(default_factory=lambda: {0: 1})
    _begun: int = 0
    _acknowledged: int = 0
    _newest: int = 1

    def commits(self, value: int, version: int) -> None:
        """Records that the database has committed a value."""
        if not self.behind:
            self._places[value] = version

    def begins(self, value: int) -> None:
        """Records that a write has begun."""
        self._begun += 1
        if self.behind:
            self._places[value] = self._begun + 1

    def acknowledges(self, value: int) -> None:
        """Records that a write was acknowledged."""
        self._acknowledged += 1
        if value in self._places:
            self._newest = max(self._newest, self._places[value])
        elif self.holds is Holds.VALUES:
            self._find(Anomaly.LOST, f"{value} was acknowledged, and the database does not have it.")

    @property
    def floor(self) -> int:
        """The oldest version, or the lowest count, that a read which begins now may return."""
        return self._acknowledged if self.holds is Holds.COUNTS else self._newest

    def answers(self, value: int | None, floor: int) -> None:
        """Judges a read that began at `floor` and returned `value`."""
        value = value or 0
        if self.holds is Holds.COUNTS:
            if value < floor:
                self._find(Anomaly.STALE, f"{floor} were acknowledged before this read began, and it answers {value}.")
            elif value > self._begun:
                self._find(Anomaly.DOUBLED, f"{self._begun} were written, and a read answers {value}.")
        elif value not in self._places:
            self._find(Anomaly.UNCOMMITTED, f"A read answers {value}, which the database does not have.")
        elif self._places[value] < floor:
            self._find(
                Anomaly.STALE, f"{self._at(floor)} was acknowledged before this read began, and it answers {value}."
            )

    def ends(self, database: int, read: int | None) -> None:
        """Judges the end, after everything was flushed: what the database has, and what a read returns."""
        read = read or 0
        if self.holds is Holds.COUNTS:
            if database < self._acknowledged:
                self._find(
                    Anomaly.LOST, f"{self._acknowledged} were acknowledged, and the database has {database} in the end."
                )
            elif database > self._begun:
                self._find(Anomaly.DOUBLED, f"{self._begun} were written, and the database has {database} in the end.")
            elif read != database:
                self._find(Anomaly.STALE if read < database else Anomaly.UNCOMMITTED, self._different(database, read))
        elif self._places.get(database, 0) < self._newest:
            self._find(
                Anomaly.LOST,
                f"{self._at(self._newest)} was acknowledged, and the database has {database} in the end.",
            )
        elif read != database:
            newer = read not in self._places or self._places[read] > self._places.get(database, 0)
            self._find(Anomaly.UNCOMMITTED if newer else Anomaly.STALE, self._different(database, read))

    def _different(self, database: int, read: int) -> str:
        return f"In the end a read answers {read}, and the database has {database}."

    def _at(self, place: int) -> int:
        return next(value for value, where in self._places.items() if where == place)

    def _find(self, anomaly: Anomaly, what: str) -> None:
        self.found.setdefault(anomaly, what)
