"""The lab's own stores, and their leftovers."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.lab.commands.stores import stores
from tests.embedded.apps import kill_all, servers_below
from tests.open_directory import open_directory
from tests.service import REPOSITORY

HELD = """
from app.lab.commands.stores import stores
with stores():
    print("up", flush=True)
    input()
"""


CLEARING = """
import sys
from pathlib import Path
from app.embedded import embedded_servers
with embedded_servers(Path(sys.argv[1])):
    print("up", flush=True)
    input()
"""


@contextmanager
def lab(*arguments: str, code: str = HELD) -> Iterator[subprocess.Popen[str]]:
    """A lab in its own process, whose stores are up; killed at the end if it still runs."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as held:  # fmt: skip
        assert held.stdout is not None
        assert held.stdout.readline() == "up\n"
        try:
            yield held
        finally:
            held.kill()


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory in which labs without configured stores keep their own."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with open_directory() as directory:
        monkeypatch.setenv("TMPDIR", str(directory))
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield directory
        kill_all(servers_below([directory]))


def test_servers_left_by_a_killed_lab_are_stopped_and_removed_by_the_next_lab(directory: Path) -> None:
    """A lab starts its stores, and is killed with SIGKILL · another lab lives · the next lab starts"""
    with lab() as killed:
        (left,) = directory.glob(f"fourways-lab-{killed.pid}-*")
    assert len(servers_below([left])) >= 2
    with lab() as living:
        (lived_in,) = directory.glob(f"fourways-lab-{living.pid}-*")
        # It has already stopped and removed what was left before it started.
        assert not left.exists()
        assert servers_below([left]) == []
        with stores():
            assert len(servers_below([lived_in])) >= 2
        living.communicate("\n")
    assert list(directory.iterdir()) == []


def test_servers_that_another_lab_is_cleaning_up_are_left_to_it(directory: Path) -> None:
    """A lab was killed · A adopts its servers, to stop them · B starts at the same moment"""
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    left = directory / f"fourways-lab-{dead.pid}-left"
    left.mkdir(mode=0o755)
    (directory / f"fourways-lab-{10**20}-no-process").mkdir()
    with lab(str(left), code=CLEARING) as clearing:
        with stores():
            assert len(servers_below([left])) >= 2
        clearing.communicate("\n")
        assert clearing.returncode == 0
    assert servers_below([left]) == []
