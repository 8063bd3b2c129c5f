"""Every call, and when it was answered with what; and for how long which slots were allowed to be refused."""

from collections import Counter
from dataclasses import dataclass, field
from math import inf


@dataclass(frozen=True, slots=True)
class Call:
    """A call, the slots that it needs, and its answer: the status, and what it says of a problem."""

    what: str
    slots: frozenset[int]
    began: float
    ended: float
    status: int
    problem: str = ""

    def __str__(self) -> str:
        return f"{self.what} was answered {self.status} after {self.ended - self.began:.2f} s: {self.problem}"


@dataclass(slots=True)
class Outage:
    """A time in which these slots may be refused, because their primary is dead, or they are half moved."""

    slots: frozenset[int]
    began: float
    ended: float = inf

    def excuses(self, call: Call) -> bool:
        """Whether the call needed one of the slots while they were away."""
        return bool(self.slots & call.slots) and call.began <= self.ended and call.ended >= self.began


@dataclass(slots=True)
class Journal:
    """The calls and the outages of one round."""

    calls: list[Call] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)

    def excused(self) -> list[Call]:
        """Returns the calls that needed what was away."""
        return [call for call in self.calls if any(outage.excuses(call) for outage in self.outages)]

    def others(self) -> list[Call]:
        """Returns all other calls."""
        return [call for call in self.calls if not any(outage.excuses(call) for outage in self.outages)]


def failed(calls: list[Call]) -> list[Call]:
    """Returns the calls that were answered with a 5xx."""
    return [call for call in calls if call.status >= 500]


def told(calls: list[Call]) -> str:
    """Returns how many of the calls failed, and of which kinds."""
    kinds = Counter(" ".join(call.what.split("/")[:2]) for call in failed(calls))
    return f"{kinds.total()} of {len(calls)}" + (f" {dict(kinds)}" if kinds else "")
