"""Samples, taken in turns, and the ratios between them.

round 1   A B C
round 2   A B C      a ratio is computed within one round, so that what slows the machine slows both sides of it
round 3   A B C
"""

import gc
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from statistics import median

MILLISECOND = timedelta(milliseconds=1)


class WrongAnswer(Exception):
    """A variant gave a different answer from the others, or none: its figures are worth nothing."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one turn of one variant did. `cpu` is the processor time that the serving process used for `done`."""

    done: int
    took: timedelta
    cpu: timedelta | None = None
    p50: timedelta | None = None
    p99: timedelta | None = None

    @property
    def rate(self) -> float:
        """How many were done per second."""
        return self.done / self.took.total_seconds()

    @property
    def cpu_each(self) -> float | None:
        """Microseconds of processor time for one."""
        return None if self.cpu is None else self.cpu.total_seconds() * 1e6 / self.done


@dataclass(frozen=True, slots=True)
class Variant:
    """One way of doing it. `measure` runs one turn."""

    name: str
    measure: Callable[[], Awaitable[Sample]]


Value = Callable[[Sample], float | timedelta | None]


@dataclass(frozen=True, slots=True)
class Rounds:
    """The samples of each variant, one per round."""

    samples: Mapping[str, Sequence[Sample]]

    def values(self, name: str, value: Value) -> tuple[float, ...]:
        """Returns one value per round; durations in milliseconds. Empty when it was not measured."""
        found = [value(sample) for sample in self.samples[name]]
        return tuple(each / MILLISECOND if isinstance(each, timedelta) else each for each in found if each is not None)

    def ratio(self, name: str, base: str, value: Value = lambda sample: sample.rate) -> tuple[float, ...]:
        """Returns the value of one variant divided by that of another, for each round."""
        return tuple(a / b for a, b in zip(self.values(name, value), self.values(base, value), strict=True))


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio or another figure that is aimed at. `values` has one per round."""

    text: str
    values: Sequence[float]
    bound: float
    at_most: bool = False

    @property
    def reached(self) -> bool:
        """Whether the median meets the bound."""
        middle = median(self.values)
        return middle <= self.bound if self.at_most else middle >= self.bound


@dataclass(frozen=True, slots=True)
class Table:
    """Figures for a person to read."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a chart; it shows the median, the least and the largest of the values."""

    label: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars of one unit."""

    title: str
    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True)
class Result:
    """The result for one question."""

    name: str
    question: str
    goals: Sequence[Goal]
    tables: Sequence[Table]
    chart: Chart
    rounds: Mapping[str, Rounds] = field(default_factory=dict)


async def interleave(variants: Sequence[Variant], rounds: int, report: Callable[[str], None]) -> Rounds:
    """Measures each variant once in each round. The rounds follow each other at once, so that the first variant of a
    round does not always come after a pause. One more round before them warms up, and does not count."""
    samples: dict[str, list[Sample]] = {variant.name: [] for variant in variants}
    for number in range(rounds + 1):
        for variant in variants:
            report(f"{f'round {number} of {rounds}' if number else 'warm-up'}: {variant.name}")
            gc.collect()  # No variant should pay for the garbage of the one before it.
            sample = await variant.measure()
            if number:
                samples[variant.name].append(sample)
    return Rounds(samples)


def compared(title: str, rounds: Rounds, base: str, *, unit: str = "1/s") -> Table:
    """Returns a table with a row for each variant: how much it does, what that costs, and how long one takes, beside
    `base`."""
    rows = []
    for name in rounds.samples:
        cpu = rounds.values(name, lambda sample: sample.cpu_each)
        p50 = rounds.values(name, lambda sample: sample.p50)
        p99 = rounds.values(name, lambda sample: sample.p99)
        base_cpu = rounds.ratio(base, name, lambda sample: sample.cpu_each) if cpu else ()
        rows.append(
            [
                name,
                f"{median(rounds.values(name, lambda sample: sample.rate)):,.0f}",
                spread(rounds.ratio(name, base)),
                f"{median(cpu):,.1f}" if cpu else "",
                spread(base_cpu),
                f"{median(p50):.2f}" if p50 else "",
                f"{median(p99):.2f}" if p99 else "",
            ]
        )
    columns = ["", unit, f"times {base}", "CPU µs each", "times less CPU", "p50 ms", "p99 ms"]
    used = [place for place, _name in enumerate(columns) if place == 0 or any(row[place] for row in rows)]
    return Table(title, [columns[place] for place in used], [[row[place] for place in used] for row in rows])


def rates(title: str, rounds: Rounds) -> Chart:
    """Returns a chart with a bar for each variant: how many per second."""
    return Chart(title, [Bar(name, rounds.values(name, lambda sample: sample.rate)) for name in rounds.samples])


def spread(values: Sequence[float]) -> str:
    """Formats the least, the median and the largest of some values."""
    return " / ".join(f"{value:.2f}" for value in (min(values), median(values), max(values))) if values else ""
