"""Processes that share a directory, and those that are refused."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from app.embedded import EmbeddedError, embedded_servers, running_endpoints
from app.embedded.directory_lock import DirectoryLock
from app.embedded.waiting import wait_until
from tests.embedded.apps import ROOT, postmaster_pid, redis_pid, running_app


def test_workers_of_one_supervisor_share_the_servers_and_the_last_one_stops_them(directory: Path) -> None:
    with running_app(directory, "--workers", "3") as app:
        told = [app.event() for _ in range(3)]
        assert {one["event"] for one in told} == {"in"}
        assert len({one["redis_url"] for one in told}) == 1
        assert sum(any(step.endswith("started") for step in one["steps"]) for one in told) == 1
        for one in told[:2]:
            app.order(f"leave {one['pid']}")
            assert app.event() == {"event": "out", "pid": one["pid"]}
            assert running_endpoints(directory) is not None
        app.leave()
    assert running_endpoints(directory) is None


def test_a_killed_worker_is_replaced_by_one_that_joins(directory: Path) -> None:
    with running_app(directory, "--workers", "2") as app:
        first, _ = app.event(), app.event()
        psutil.Process(first["pid"]).kill()
        app.order("spawn")
        assert {step.split()[-1] for step in app.event()["steps"]} == {"joined"}
        app.leave()
    assert running_endpoints(directory) is None


def test_a_killed_only_worker_is_replaced_by_one_that_adopts_the_servers(directory: Path) -> None:
    with running_app(directory, "--workers", "1") as app:
        psutil.Process(app.event()["pid"]).kill()
        app.order("spawn")
        assert all("adopted" in step for step in app.event()["steps"])
        app.leave()
    assert running_endpoints(directory) is None


def test_a_worker_that_joins_restarts_a_dead_server(directory: Path) -> None:
    with running_app(directory, "--workers", "1") as app:
        app.event()
        endpoints = running_endpoints(directory)
        assert endpoints is not None
        postgres, redis = postmaster_pid(endpoints), psutil.Process(redis_pid(endpoints))
        redis.kill()
        assert wait_until(lambda: running_endpoints(directory) is None, 10)
        app.order("spawn")
        assert [step.split()[-1] for step in app.event()["steps"]] == ["started", "joined"]
        assert postmaster_pid(endpoints) == postgres
        app.leave()


def test_another_app_is_refused_with_the_pid_to_stop(directory: Path) -> None:
    with running_app(directory, "--workers", "1") as app:
        app.event()
        with pytest.raises(EmbeddedError) as refused, embedded_servers(directory):
            pytest.fail("Two apps are in one directory.")
        wanted = f"{directory} is already in use by process {app.pid}; stop it, or run in another directory."
        assert str(refused.value) == wanted
        assert running_endpoints(directory) is not None
        app.leave()


def test_the_refusal_names_an_orphaned_worker_when_its_supervisor_is_dead(directory: Path) -> None:
    with running_app(directory, "--workers", "1") as app:
        worker = psutil.Process(app.event()["pid"])
        worker.suspend()  # Otherwise it would leave when it notices that the supervisor is gone.
        psutil.Process(app.pid).kill()
        assert wait_until(lambda: psutil.Process(app.pid).status() == psutil.STATUS_ZOMBIE, 10)
        with pytest.raises(EmbeddedError, match=f"in use by process {worker.pid};"), embedded_servers(directory):
            pytest.fail("Two apps are in one directory.")
        worker.resume()
    # The worker leaves. A process that comes meanwhile waits for it and starts the servers, or is refused once more.
    assert wait_until(lambda: not worker.is_running(), 30)
    assert running_endpoints(directory) is None


def test_another_app_is_refused_at_once_while_the_first_one_is_starting(base: Path) -> None:
    began, go_on = threading.Event(), threading.Event()

    def start(first: bool) -> None:
        began.set()
        assert go_on.wait(30)

    first = threading.Thread(target=_enter, args=(base, start, _nothing))
    first.start()
    assert began.wait(30)
    told = _run_elsewhere(base)
    go_on.set()
    first.join()
    assert "is already in use by process" in told.stderr


def test_another_app_waits_for_one_that_is_stopping(base: Path) -> None:
    stopping, go_on = threading.Event(), threading.Event()

    def stop() -> None:
        stopping.set()
        assert go_on.wait(30)

    first = threading.Thread(target=_enter, args=(base, lambda first: None, stop))
    first.start()
    assert stopping.wait(30)
    command = [sys.executable, "-m", "tests.embedded.locking_process", str(base), "1", "1"]
    with subprocess.Popen(command, cwd=ROOT) as other:
        gate = str(base / "gate")
        assert wait_until(lambda: any(_has_open(child, gate) for child in psutil.Process(other.pid).children()), 30)
        assert other.poll() is None
        go_on.set()
        assert other.wait(30) == 0
    first.join()


def test_many_concurrent_workers_never_start_or_stop_the_servers_twice(base: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.embedded.locking_process", str(base), "4", "100"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _run_elsewhere(base: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tests.embedded.locking_process", str(base), "1", "1"]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)


def _has_open(process: psutil.Process, path: str) -> bool:
    try:
        return any(file.path == path for file in process.open_files())
    except psutil.Error:
        return False


def _enter(base: Path, start: Callable[[bool], None], stop: Callable[[], None]) -> None:
    with DirectoryLock(base).shared(start=start, stop=stop):
        pass


def _nothing() -> None:
    """Stops nothing."""
