"""No variable of libpq is set, and there are no files in the home directory."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.database_url.environment import VARIABLES
from tests.faults.certificates import Certificates
from tests.open_directory import open_directory


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process with an empty home, in an environment that says nothing of Postgres."""
    for variable in (*VARIABLES, "PGSERVICEFILE", "PGSYSCONFDIR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="session")
def certificates() -> Iterator[Certificates]:
    """Certificates in a directory of their own."""
    with open_directory() as directory:
        yield Certificates.made(directory)
