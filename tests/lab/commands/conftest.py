"""The commands find the tests' own stores, or a bare machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.embedded import Endpoints
from app.lab.commands.screen import console
from tests.open_directory import open_directory


@pytest.fixture
def stores(servers: Endpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command finds the tests' own stores."""
    monkeypatch.setenv("REDIS_URL", servers.redis_url)
    monkeypatch.setenv("DATABASE_URL", servers.database_url)
    # And not COLUMNS: pytest's own terminal may have set that before the screen was made.
    monkeypatch.setattr(console, "width", 220)


@pytest.fixture
def directory() -> Iterator[Path]:
    """For what is printed, and for the data of stores that a command brings itself."""
    with open_directory() as directory:
        yield directory
