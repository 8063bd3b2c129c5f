"""The turns of a schedule: what may happen next.

A process that has begun continues until it waits or ends. Letting another one go first is a preemption. The death of a
process, a lost answer, and the expiry of leases are faults.
"""

from dataclasses import dataclass
from enum import IntEnum, auto


class Turn(IntEnum):
    """What happens."""

    GO = auto()  # An actor's call is carried out.
    LOSE = auto()  # It is carried out, and its answer is lost.
    DIE = auto()  # The actor's process dies before the call.
    WAIT = auto()  # A poll is due.
    LAPSE = auto()  # The leases expire, as if every process had stalled for that long.


FAULTS = frozenset({Turn.LOSE, Turn.DIE, Turn.LAPSE})


@dataclass(frozen=True, slots=True)
class Choice:
    """One turn of a schedule: the `number`-th call of an actor."""

    turn: Turn
    actor: int = -1
    number: int = 0
