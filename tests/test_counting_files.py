"""The files in which workers count together, where they cannot be written, and on a full disk."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

import httpx
import pytest

from app.counting_files import KINDS, LOCK, PREFIX, SIZE, VARIABLE, end_gauges_of_the_dead, kept_directory, make_files
from app.embedded import Endpoints
from tests.eventually import eventually
from tests.fork_server import PROGRAMS, REPOSITORY
from tests.home import Home
from tests.terminal import Terminal, terminal

ALONE = "This worker reports its own metrics only, without those of others: it cannot write to {} ({})."
LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
from app.__main__ import main
main()
"""
SERVE = ("serve", "--workers", "2")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator["Disk"]:
    """A small disk, in memory."""
    try:
        subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("Only root may mount a file system.")
    yield Disk(tmp_path)
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


class Disk:
    """A file system of a chosen size."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def resize(self, size: int) -> None:
        """Makes it so large."""
        subprocess.run(["mount", "-o", f"remount,size={size}", self.path], check=True)

    def fill(self) -> None:
        """Makes it as large as its content."""
        used = shutil.disk_usage(self.path).used
        self.resize(used)
        assert shutil.disk_usage(self.path).free == 0


@asynccontextmanager
async def serving(
    home: Home, endpoints: Endpoints, *command: str, **environment: str
) -> AsyncIterator[tuple[Terminal, httpx.AsyncClient]]:
    """The service with two workers, started by a command."""
    stores = {"REDIS_URL": endpoints.redis_url, "DATABASE_URL": endpoints.database_url, "PYTHONPATH": str(REPOSITORY)}
    async with (
        terminal(home.screen(), *command, **{**home.environment, **stores, **environment}) as fourways,
        home.client() as client,
    ):

        async def is_ready() -> bool:
            try:
                return bool((await client.get("/health/ready")).json()["status"] == "ready")
            except httpx.TransportError:
                return False

        await fourways.shows("Fourways serves at")
        await eventually(is_ready)
        yield fourways, client


async def _ask_for_everything(home: Home) -> None:
    """Asks both workers, so that they count all kinds of events."""
    for number in range(30):
        async with home.client() as client:
            await client.post("/products", json={"sku": f"S-{number}", "name": "Cup", "price": "1"})
            await client.put(f"/inventory/S-{number}", json={"quantity": 1})
            await client.post("/page-views/home")
            for path in ("/users/1", f"/products/S-{number}", f"/inventory/S-{number}", "/page-views/home"):
                await client.get(path)
            assert (await client.get("/metrics")).status_code == 200


async def test_workers_that_cannot_write_such_large_files_report_themselves_and_live(
    home: Home, endpoints: Endpoints, tmp_path: Path
) -> None:
    directory = str(tmp_path / "metrics")
    async with serving(home, endpoints, sys.executable, "-c", LIMITED, *SERVE, PROMETHEUS_MULTIPROC_DIR=directory) as (
        fourways,
        client,
    ):
        await _two_say(fourways, ALONE.format(directory, "File too large"))
        await client.get("/users/1")
        assert 'fourways_cache_events_total{event="miss",resource="users"} 1.0' in (await client.get("/metrics")).text
        assert "fourways_breaker_open 0.0" in (await client.get("/metrics")).text
        assert _names(directory) == [LOCK]
        assert "replace" not in fourways.screen


async def test_workers_on_a_full_disk_report_themselves_and_live(home: Home, endpoints: Endpoints, disk: Disk) -> None:
    disk.resize(20_000)
    async with serving(home, endpoints, "fourways", *SERVE, PROMETHEUS_MULTIPROC_DIR=str(disk.path)) as (fourways, _):
        await _two_say(fourways, ALONE.format(disk.path, "No space left on device"))
        await _ask_for_everything(home)
        assert "replace" not in fourways.screen


async def test_workers_outlive_a_disk_that_becomes_full_and_count_on(
    home: Home, endpoints: Endpoints, disk: Disk
) -> None:
    """The workers start, and have written a page of each file · the disk is full · they write more pages"""
    async with serving(home, endpoints, "fourways", *SERVE, PROMETHEUS_MULTIPROC_DIR=str(disk.path)) as (fourways, _):

        async def both_have_their_files() -> bool:
            return len(list(disk.path.glob("*.db"))) == 2 * len(KINDS)

        await eventually(both_have_their_files)  # One worker may serve before the other has begun.
        files = list(disk.path.glob("*.db"))
        disk.fill()
        await _ask_for_everything(home)
        async with home.client() as client:
            counted = re.findall(
                r'fourways_cache_events_total\{event="(?:hit|miss|collapsed)",resource="users"\} (\d+)',
                (await client.get("/metrics")).text,
            )
        assert sum(map(int, counted)) == 30
        assert {file.stat().st_size for file in files} == {SIZE}, "The metrics fit."
        assert "Worker" not in fourways.screen


@pytest.fixture
def read_only() -> tuple[str, ...]:
    """The beginning of a command that runs the rest of it where the root of the file system is read-only."""
    unshare = shutil.which("unshare") or ""
    command = (unshare, "--mount", "sh", "-c", 'mount -o remount,bind,ro / && exec "$@"', "sh")
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("Only root may mount a file system.")
    return command


async def test_with_a_read_only_root_the_workers_start_once_and_say_what_to_set(
    home: Home, endpoints: Endpoints, read_only: tuple[str, ...]
) -> None:
    async with serving(home, endpoints, *read_only, str(PROGRAMS / "fourways"), *SERVE) as (fourways, client):
        await eventually(lambda: _says(fourways, "(Read-only file system). Set PROMETHEUS_MULTIPROC_DIR to", 2))
        assert (await client.get("/metrics")).status_code == 200
        assert "replace" not in fourways.screen


def test_only_gauges_of_processes_that_have_ended_are_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    others = [tmp_path / f"{name}.db" for name in (f"counter_{ended.pid}", "gauge_livemax_other", "gauge_max_1")]
    with make_files(tmp_path):
        for path in (*others, gauge := tmp_path / f"gauge_livemax_{ended.pid}.db"):
            path.touch()
        end_gauges_of_the_dead(tmp_path)
    own = [tmp_path / f"{kind}_{os.getpid()}.db" for kind in KINDS]
    assert set(tmp_path.iterdir()) == {*own, *others, tmp_path / LOCK}
    assert gauge not in tmp_path.iterdir()


def test_directories_of_others_with_impossible_names_do_not_keep_a_worker_from_counting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any user can make one in a shared directory for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in (f"{PREFIX}{10**30}-x", f"{PREFIX}x"):
        (tmp_path / name).mkdir()
    with make_files(tmp_path / "own"):
        assert len(list((tmp_path / "own").glob("*.db"))) == len(KINDS)


@pytest.fixture
def ended() -> int:
    """The pid of a process that has ended, or that runs where this one cannot see it, as in another container."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for temporary files, which containers may share."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_directory_is_removed_once_nobody_counts_in_it(shared: Path, ended: int) -> None:
    """A service counts, whose supervisor has a pid of another container · another one starts · the first one ends"""
    theirs = shared / f"{PREFIX}{ended}-theirs"
    counting = make_files(theirs)
    make_files(shared / "second").close()
    assert len(list(theirs.glob("*.db"))) == len(KINDS)
    counting.close()
    make_files(shared / "third").close()
    assert not theirs.exists()


def test_a_directory_is_removed_although_a_process_with_the_pid_of_its_supervisor_runs(shared: Path) -> None:
    """In each container, the supervisor is process 1."""
    theirs = shared / f"{PREFIX}{os.getpid()}-theirs"
    make_files(theirs).close()
    make_files(shared / "second").close()
    assert not theirs.exists()


def test_a_directory_without_a_lock_stays_while_its_supervisor_runs(shared: Path) -> None:
    """An earlier version has made it."""
    theirs = shared / f"{PREFIX}{os.getpid()}-theirs"
    theirs.mkdir()
    make_files(shared / "second").close()
    assert theirs.exists()


def test_a_supervisor_keeps_its_directory_while_none_of_its_workers_lives(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All workers are killed · another service starts · the workers are replaced, and count on"""
    monkeypatch.delenv(VARIABLE, raising=False)
    with kept_directory():
        (directory,) = shared.iterdir()
        make_files(directory).close()
        make_files(shared / "second").close()
        assert len(list(directory.glob("*.db"))) == len(KINDS)
    make_files(shared / "third").close()
    assert not directory.exists()


def test_a_service_that_starts_where_another_one_is_just_removing_its_directory_begins_again(
    shared: Path, ended: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A makes its directory                          B finds it, and takes its lock alone
    A opens the lock, and waits                       B removes the directory, and releases the lock
    A would count in files that nobody finds
    """
    ours = shared / f"{PREFIX}{ended}-ours"
    removed: list[bool] = []
    wait = fcntl.flock

    def while_another_one_sweeps(lock: BinaryIO, operation: int) -> None:
        if operation == fcntl.LOCK_SH and not removed:
            monkeypatch.setattr(fcntl, "flock", wait)
            make_files(shared / "other").close()
            removed.append(not ours.exists())
        wait(lock, operation)

    monkeypatch.setattr(fcntl, "flock", while_another_one_sweeps)
    with make_files(ours):
        assert removed == [True]
        assert len(list(ours.glob("*.db"))) == len(KINDS)


def test_nothing_is_written_through_a_link_that_looks_like_a_directory_of_ours(shared: Path, ended: int) -> None:
    """Any user can make one in a shared directory for temporary files."""
    (shared / "elsewhere").mkdir()
    (shared / f"{PREFIX}{ended}-x").symlink_to(shared / "elsewhere")
    make_files(shared / "own").close()
    assert not list((shared / "elsewhere").iterdir())


def _names(directory: str) -> list[str]:
    return [file.name for file in Path(directory).iterdir()]


async def _two_say(fourways: Terminal, line: str) -> None:
    await eventually(lambda: _says(fourways, line, 2))


async def _says(fourways: Terminal, line: str, times: int) -> bool:
    return fourways.screen.count(line) == times
