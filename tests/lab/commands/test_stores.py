"""The lab's own stores, and what is left of them."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def lab() -> Iterator[subprocess.Popen[str]]:
    """A lab in a process of its own, whose stores are up; killed at the end, where it has not ended."""
    with subprocess.Popen(
        [sys.executable, "-c", HELD], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as held:
        assert held.stdout is not None
        assert held.stdout.readline() == "up\n"
        try:
            yield held
        finally:
            held.kill()


def test_what_a_killed_lab_has_left_running_is_stopped_and_removed_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lab starts its stores, and is killed with SIGKILL · another one lives · the next one starts"""
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with open_directory() as directory:
        monkeypatch.setenv("TMPDIR", str(directory))
        monkeypatch.setattr(tempfile, "tempdir", None)
        with lab() as killed:
            (left,) = directory.glob(f"fourways-lab-{killed.pid}-*")
        try:
            assert len(servers_below([left])) >= 2
            with lab() as living:
                (lived_in,) = directory.glob(f"fourways-lab-{living.pid}-*")
                # It has done it already, with what was killed before it.
                assert not left.exists()
                assert servers_below([left]) == []
                with stores():
                    assert len(servers_below([lived_in])) >= 2
                living.communicate("\n")
            assert list(directory.iterdir()) == []
        finally:
            kill_all(servers_below([directory]))
