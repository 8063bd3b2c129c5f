"""The commands find the tests' own stores, or a bare machine."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from rich.progress import Progress

from app.embedded import Endpoints
from app.lab.commands import advise, compare
from app.lab.commands.interruption import Interruption
from app.lab.commands.screen import console
from app.lab.comparison.comparison import Comparison
from app.lab.comparison.contestant import CONTESTANTS, Contestant
from app.lab.comparison.plan import Plan
from app.lab.traces.trace import Trace
from tests.open_directory import open_directory


@pytest.fixture
def stores(servers: Endpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command finds the tests' own stores."""
    monkeypatch.setenv("REDIS_URL", servers.redis_url)
    monkeypatch.setenv("DATABASE_URL", servers.database_url)
    # And not COLUMNS: pytest's own terminal may have set that before the screen was made.
    monkeypatch.setattr(console, "width", 220)


@pytest.fixture(scope="module")
def comparisons() -> dict[tuple[str, ...], Comparison]:
    """Those that were played in this file, by what was played."""
    return {}


@pytest.fixture
def played_once(stores: None, comparisons: dict[tuple[str, ...], Comparison], monkeypatch: pytest.MonkeyPatch) -> None:
    """What was played already with the same operations, plan and contestants is not played again: the test looks at
    what is told of it."""
    really = compare.play

    def play(
        trace: Trace,
        plan: Plan,
        interruption: Interruption,
        bar: Progress,
        contestants: Sequence[Contestant] = CONTESTANTS,
    ) -> Comparison:
        played = (repr(trace), repr(plan), *(contestant.name for contestant in contestants))
        if played not in comparisons:
            comparisons[played] = really(trace, plan, interruption, bar, contestants)
        return comparisons[played]

    monkeypatch.setattr(compare, "play", play)
    monkeypatch.setattr(advise, "play", play)


@pytest.fixture
def directory() -> Iterator[Path]:
    """For what is printed, and for the data of stores that a command brings itself."""
    with open_directory() as directory:
        yield directory
