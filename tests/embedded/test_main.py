"""`python -m app.embedded`, as `make psql` and `make redis-cli` run it."""

import subprocess
import sys
from pathlib import Path

from app.embedded import embedded_servers
from tests.embedded.apps import ROOT


def test_the_clients_connect_to_the_pair_of_the_directory(directory: Path) -> None:
    with embedded_servers(directory):
        assert _run(directory, "psql", "-XAtc", "select 40 + 2").stdout == "42\n"
        assert _run(directory, "redis-cli", "ping").stdout == "PONG\n"


def test_without_running_servers_one_sentence_says_how_to_start_them(fresh: Path) -> None:
    for client in ("psql", "redis-cli"):
        done = _run(fresh, client)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"Nothing runs in {fresh}; `make run` starts it.\n"


def _run(directory: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "app.embedded", "--directory", str(directory), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
