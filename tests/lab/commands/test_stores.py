"""The lab's own stores, and what is left of them."""

import subprocess
import sys
import tempfile

import pytest

from app.lab.commands.stores import stores
from tests.embedded.apps import servers_below
from tests.open_directory import open_directory
from tests.service import REPOSITORY

HELD = """
from app.lab.commands.stores import stores
with stores():
    print("up", flush=True)
    input()
"""


def test_what_a_killed_lab_has_left_running_is_stopped_and_removed_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lab starts its stores, and is killed with SIGKILL · another one lives · the next one starts"""
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with open_directory() as directory:
        monkeypatch.setenv("TMPDIR", str(directory))
        monkeypatch.setattr(tempfile, "tempdir", None)
        killed, living = (
            subprocess.Popen(
                [sys.executable, "-c", HELD], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(2)
        )
        for lab in (killed, living):
            assert lab.stdout is not None
            assert lab.stdout.readline() == "up\n"
        killed.kill()
        killed.communicate()
        (left,) = directory.glob(f"fourways-lab-{killed.pid}-*")
        (lived_in,) = directory.glob(f"fourways-lab-{living.pid}-*")
        assert len(servers_below([left])) >= 2
        with stores():
            assert not left.exists()
            assert servers_below([left]) == []
            assert len(servers_below([lived_in])) >= 2
        living.communicate("\n")
        assert list(directory.iterdir()) == []
