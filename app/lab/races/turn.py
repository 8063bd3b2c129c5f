"""The turns of a schedule: what may happen next.

A process that has begun goes on until it waits or ends. To let another one go first is a preemption. A process that
dies, an answer that is lost, and leases that end are faults.
"""

from dataclasses import dataclass
from enum import IntEnum, auto


class Turn(IntEnum):
    """What happens."""

    GO = auto()  # An actor's call is carried out.
    LOSE = auto()  # It is carried out, and its answer is lost.
    DIE = auto()  # The actor's process dies before it.
    WAIT = auto()  # A poll is due.
    LAPSE = auto()  # The leases end: everybody has stalled for so long.


FAULTS = frozenset({Turn.LOSE, Turn.DIE, Turn.LAPSE})


@dataclass(frozen=True, slots=True)
class Choice:
    """One turn of a schedule: the `number`-th call of an actor."""

    turn: Turn
    actor: int = -1
    number: int = 0
