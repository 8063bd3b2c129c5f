"""No variable of libpq is set, and there are no files in the home directory."""

from pathlib import Path

import pytest

from app.database_url.environment import VARIABLES


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process with an empty home, in an environment that says nothing of Postgres."""
    for variable in (*VARIABLES, "PGSERVICEFILE", "PGSYSCONFDIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
