"""What a process reported of its writes before it was killed.

    contestant ⇥ place ⇥ began           ⇥ seconds
    contestant ⇥ place ⇥ acknowledged    ⇥ seconds
    cut                                     each flusher has a batch in flight

The lines are in a pipe, so that no acknowledged write is missed.
"""

from dataclasses import dataclass, field

from app.lab.comparison.oracle import NEVER, Write

CUT = "cut"


@dataclass(slots=True)
class Killed:
    """The writes of each contestant by their places, and when the process was killed, in seconds of
    `time.monotonic`."""

    writes: dict[str, dict[str, Write]] = field(default_factory=dict)
    at: float = 0.0

    def hear(self, line: str) -> None:
        """Reads a line of the process."""
        if line == CUT:
            return
        name, place, what, when = line.split("\t")
        of_name = self.writes.setdefault(name, {})
        if what == "began":
            of_name[place] = Write(int(place) + 1, float(when))
        else:
            of_name[place].acknowledged = float(when)

    def acknowledged(self, name: str) -> int:
        """Returns how many writes of this contestant were acknowledged."""
        return sum(1 for write in self.writes.get(name, {}).values() if write.acknowledged < NEVER)
