"""A schedule that shows an anomaly."""

from dataclasses import dataclass

from app.lab.anomaly import Anomaly
from app.lab.races.gate import Line
from app.lab.races.timeline import timeline


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong, and the `lines` that record what each actor did. The schedule has `cost` preemptions and faults,
    of which `faults` are faults."""

    anomaly: Anomaly
    what: str
    cost: int
    faults: int
    names: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def size(self) -> tuple[int, int, int]:
        """The sort key: the smaller failure is the better one to show. A race without a fault says more than one with a
        fault."""
        return self.cost, self.faults, len(self.lines)

    def __str__(self) -> str:
        return f"{timeline(self.names, self.lines)}\n\n{self.anomaly.value}: {self.what}"
