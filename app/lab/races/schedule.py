"""A schedule as it was run: all its decisions, and the schedules that decide one of them differently."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from app.lab.races.failure import Failure
from app.lab.races.turn import FAULTS, Choice


@dataclass(slots=True)
class Point:
    """A decision: the options and their prices, the choice, and its price."""

    options: list[tuple[Choice, int]]
    chosen: Choice
    price: int


@dataclass(slots=True)
class Schedule:
    """A schedule whose first `given` choices were given. `given_up` says that it did not end."""

    given: int
    points: list[Point] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    given_up: bool = False

    def alternatives(self) -> Iterator[tuple[int, tuple[Choice, ...]]]:
        """Yields the beginnings that differ from this one in their last choice, each with its cost."""
        cost, chosen = 0, tuple(point.chosen for point in self.points)
        for place, point in enumerate(self.points):
            if place >= self.given:
                for choice, price in point.options:
                    if choice != point.chosen:
                        yield cost + price, (*chosen[:place], choice)
            cost += point.price

    @property
    def cost(self) -> int:
        """The number of its preemptions and faults."""
        return sum(point.price for point in self.points)

    @property
    def faults(self) -> int:
        """The number of its faults."""
        return sum(point.chosen.turn in FAULTS for point in self.points)
