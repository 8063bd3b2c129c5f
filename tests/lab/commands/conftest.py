"""The commands use the tests' own stores, or find a bare machine."""

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
    """Configures the tests' own stores for the command."""
    monkeypatch.setenv("REDIS_URL", servers.redis_url)
    monkeypatch.setenv("DATABASE_URL", servers.database_url)
    # Not through COLUMNS: pytest's own terminal may have set it before the console was created.
    monkeypatch.setattr(console, "width", 220)


@pytest.fixture(scope="module")
def comparisons() -> dict[tuple[str, ...], Comparison]:
    """The comparisons played in this file, by what was played."""
    return {}


@pytest.fixture
def played_once(stores: None, comparisons: dict[tuple[str, ...], Comparison], monkeypatch: pytest.MonkeyPatch) -> None:
    """Replays a comparison with the same operations, plan and contestants from memory: the test checks only what is
    reported of it."""
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
    """A directory for output, and for the data of a command's own stores."""
    with open_directory() as directory:
        yield directory
