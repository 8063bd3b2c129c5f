"""The output of the figures: tables on the terminal, JSON and charts in a directory, and tables in a document.

In the document each question has a place between two comments with its name; all other text stays as it is.
"""

import json
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table as Printed

from tests.benchmarks.measurement import MILLISECOND, Goal, Result, Rounds, Table, spread
from tests.benchmarks.plot import svg

PACKAGES = ("fastapi", "uvicorn", "uvloop", "redis", "hiredis", "asyncpg", "sqlalchemy", "cashews", "aiocache")


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine and the software of a measurement."""

    processor: str
    processors: int
    python: str
    load: str
    packages: dict[str, str]

    @classmethod
    def this(cls, load: str) -> "Machine":
        """Returns this machine; `load` names what made the load."""
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        return cls(
            found[1] if found else platform.machine(),
            len(os.sched_getaffinity(0)),
            platform.python_version(),
            load,
            {package: version(package) for package in PACKAGES if find_spec(package) is not None},
        )

    def __str__(self) -> str:
        packages = ", ".join(f"{name} {number}" for name, number in self.packages.items())
        return f"{self.processors} processors ({self.processor}), Python {self.python}, load by {self.load}; {packages}"


def show(console: Console, result: Result) -> None:
    """Prints a result."""
    console.print(f"\n{result.question}", style="bold")
    for table in (*result.tables, *_goals(result.goals)):
        printed = Printed(*table.columns, title=table.title, title_justify="left", box=box.SIMPLE_HEAD)
        for column in printed.columns[1:]:
            column.justify = "right"
        for row in table.rows:
            printed.add_row(*row)
        console.print(printed)


def keep(directory: Path, machine: Machine, results: Sequence[Result]) -> None:
    """Writes results.json, and a chart for each result."""
    directory.mkdir(parents=True, exist_ok=True)
    figures = {
        "machine": str(machine),
        "results": {result.name: _as_json(result) for result in results},
    }
    (directory / "results.json").write_text(json.dumps(figures, indent=1) + "\n")
    _draw(directory, results)


def publish(document: Path, machine: Machine, results: Sequence[Result]) -> None:
    """Puts tables into the places of a document, and charts into the directory of the same name beside it."""
    _draw(document.with_suffix(""), results)
    text = document.read_text()
    for name, content in [
        ("machine", f"{machine}."),
        *((result.name, _markdown(document, result)) for result in results),
    ]:
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        before, found, rest = text.partition(begin)
        if not found or end not in rest:
            raise SystemExit(f"{document} has no place for {name}: {begin} and {end}.")
        text = f"{before}{begin}\n{content}\n{end}{rest.partition(end)[2]}"
    document.write_text(text)


def _draw(directory: Path, results: Sequence[Result]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for result in results:
        (directory / f"{result.name}.svg").write_text(svg(result.chart))


def _goals(goals: Sequence[Goal]) -> Sequence[Table]:
    rows = [
        [
            goal.text,
            spread(goal.values),
            f"{'at most' if goal.at_most else 'at least'} {goal.bound:,g}",
            "reached" if goal.reached else "not reached",
        ]
        for goal in goals
    ]
    return [Table("Goals (least / median / largest of the rounds)", ["", "figure", "goal", ""], rows)] if rows else []


def _markdown(document: Path, result: Result) -> str:
    parts = [f"![{result.chart.title}]({document.stem}/{result.name}.svg)"]
    for table in (*result.tables, *_goals(result.goals)):
        lines = [table.columns, ["---", *["---:"] * (len(table.columns) - 1)], *table.rows]
        parts.append(f"**{table.title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts)


def _as_json(result: Result) -> dict[str, object]:
    return {
        "question": result.question,
        "goals": [
            {
                "text": goal.text,
                "bound": goal.bound,
                "at_most": goal.at_most,
                "reached": goal.reached,
                "min": min(goal.values),
                "median": median(goal.values),
                "max": max(goal.values),
                "values": list(goal.values),
            }
            for goal in result.goals
        ],
        "rounds": {title: _samples(rounds) for title, rounds in result.rounds.items()},
        "tables": [{"title": each.title, "columns": each.columns, "rows": each.rows} for each in result.tables],
    }


def _samples(rounds: Rounds) -> dict[str, list[dict[str, float | None]]]:
    def milliseconds(duration: timedelta | None) -> float | None:
        return None if duration is None else duration / MILLISECOND

    return {
        name: [
            {
                "per_second": sample.rate,
                "cpu_microseconds_each": sample.cpu_each,
                "p50_ms": milliseconds(sample.p50),
                "p99_ms": milliseconds(sample.p99),
            }
            for sample in samples
        ]
        for name, samples in rounds.samples.items()
    }
