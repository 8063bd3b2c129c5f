"""The tests' side of `app_process`: an app that a test can watch, stop, and kill."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from redis import Redis

from app.embedded import Endpoints
from app.embedded.binaries import postgres_install

ROOT = Path(__file__).parents[2]
SERVERS = {"redis-server", "valkey-server", "postgres", "initdb"}


class App:
    """A process that runs `app_process`."""

    def __init__(self, directory: Path, *options: str, environment: dict[str, str] | None = None) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.embedded.app_process", str(directory), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        self.pid = self._process.pid

    def event(self) -> dict[str, Any]:
        """Reads the next event."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"The app ended: {self._complaints()}"
        told = json.loads(line)
        assert isinstance(told, dict)
        return told

    def entered(self) -> Endpoints:
        """Waits until the app holds the servers, and returns their addresses."""
        told = self.event()
        assert told["event"] == "in", told
        return Endpoints(told["redis_url"], told["database_url"])

    def order(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def leave(self) -> list[dict[str, Any]]:
        """Ends the app in order, and returns its remaining events."""
        rest, _ = self._process.communicate()
        assert (self._process.returncode, self._complaints()) == (0, "")
        return [json.loads(line) for line in rest.splitlines()]

    def kill(self) -> None:
        """Kills the app with SIGKILL."""
        self._process.kill()
        self._process.communicate()

    def close(self) -> None:
        if self._process.poll() is None:
            self.kill()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            assert pipe is not None
            pipe.close()

    def _complaints(self) -> str:
        """Returns its stderr, which would contain a warning; warnings are errors there, too."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")


@contextmanager
def running_app(directory: Path, *options: str, environment: dict[str, str] | None = None) -> Iterator[App]:
    app = App(directory, *options, environment=environment)
    try:
        yield app
    finally:
        app.close()


@contextmanager
def innocent(user: str | int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Yields a live process that has nothing to do with any server. It ends with its stdin."""
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, user=user)
    try:
        yield process
    finally:
        process.communicate()


def sql(endpoints: Endpoints, statement: str) -> str:
    """Returns the output of psql."""
    psql = [str(postgres_install() / "bin" / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", endpoints.database_url]
    return subprocess.run([*psql, "-c", statement], check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def redis_client(endpoints: Endpoints) -> Iterator[Redis]:
    with Redis.from_url(endpoints.redis_url, decode_responses=True) as client:
        yield client


def redis_pid(endpoints: Endpoints) -> int:
    with redis_client(endpoints) as client:
        return int(client.info("server")["process_id"])


def postmaster_pid(endpoints: Endpoints) -> int:
    directory = sql(endpoints, "show data_directory")
    return int(Path(directory, "postmaster.pid").read_text().splitlines()[0])


def kill_server(pid: int) -> None:
    """Kills a process with SIGKILL, and returns once it and its children are gone."""
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    process.kill()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive


def kill_all(processes: Iterable[psutil.Process]) -> None:
    """Kills each process that has not ended yet with SIGKILL."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def servers_below(directories: Iterable[Path]) -> list[psutil.Process]:
    """Returns every server process that works in one of these directories."""
    found = []
    for process in psutil.process_iter(["name", "cwd", "cmdline"]):
        if process.info["name"] not in SERVERS:
            continue
        places = [process.info["cwd"] or "", *(process.info["cmdline"] or [])]
        if any(place.startswith(str(directory)) for place in places for directory in directories):
            found.append(process)
    return found


def is_root() -> bool:
    return os.geteuid() == 0
