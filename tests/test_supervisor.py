"""How `fourways serve --workers` replaces workers that end, and what is left of them."""

import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import pytest
from prometheus_client.mmap_dict import MmapedDict
from uvicorn.config import STARTUP_FAILURE

from app.counting_files import KINDS
from app.embedded import Endpoints
from tests.eventually import eventually
from tests.fork_server import REPOSITORY, ForkServer
from tests.home import Home
from tests.terminal import Terminal, terminal

DEATH = re.compile(r"Worker (\d+) (.+): worker (\d+) replaces it\.")

IMPATIENT = """
import app.supervisor
app.supervisor.ENDING = 15
if __name__ == "__main__":
    from app.__main__ import main
    main()
"""


@pytest.fixture
def new_pythons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command here is a Python that begins by itself."""
    monkeypatch.setattr(ForkServer, "current", None)


@asynccontextmanager
async def two_workers(home: Home, endpoints: Endpoints, **environment: str) -> AsyncIterator[Terminal]:
    """`fourways serve` with two workers, on the servers of the session."""
    stores = {"REDIS_URL": endpoints.redis_url, "DATABASE_URL": endpoints.database_url}
    async with home.runs("serve", "--workers", "2", **stores, **environment) as fourways:
        await fourways.shows("Fourways serves at")
        yield fourways


async def test_the_log_says_how_a_worker_ended_and_which_one_replaces_it(home: Home, endpoints: Endpoints) -> None:
    async with two_workers(home, endpoints) as fourways, home.client() as client:
        await eventually(lambda: _is_closed(client))
        dead, other = fourways.tree().workers()
        dead.kill()
        await fourways.shows("replaces it.")
        assert re.search(r"Z WARNING app\.supervisor: Worker", fourways.screen)
        ((pid, how, new),) = DEATH.findall(fourways.screen)
        assert (int(pid), how) == (dead.pid, "was ended by SIGKILL")

        async def both_run() -> bool:
            return {worker.pid for worker in fourways.tree().workers()} == {other.pid, int(new)}

        await eventually(both_run)


async def test_a_killed_worker_leaves_no_gauge_behind(home: Home, endpoints: Endpoints) -> None:
    """A worker bypasses Redis, and says so in its gauge · it is killed · the others trust Redis"""
    async with two_workers(home, endpoints) as fourways, home.client() as client:
        await eventually(lambda: _is_closed(client))
        # It has a gauge as long as it lives. Nobody else writes to the file, so a test may: Redis is not believed.
        dead, _ = fourways.tree().workers()
        (gauge,) = [Path(file.path) for file in dead.memory_maps() if f"gauge_livemax_{dead.pid}" in file.path]
        dead.suspend()
        _set(gauge, 1.0)
        async with home.client() as another:
            assert "fourways_breaker_open 1.0" in (await another.get("/metrics")).text
        dead.kill()
        await fourways.shows("replaces it.")
        await eventually(lambda: _is_closed(client))
        assert not gauge.exists()


def _set(gauge: Path, value: float) -> None:
    """Sets the only gauge in a file of prometheus_client."""
    file: Any = MmapedDict(str(gauge))  # type: ignore[no-untyped-call]
    ((key, _, _),) = file.read_all_values()
    file.write_value(key, value, 0.0)
    file.close()


async def _is_closed(client: httpx.AsyncClient) -> bool:
    try:
        return "fourways_breaker_open 0.0" in (await client.get("/metrics")).text
    except httpx.TransportError:
        return False


FAILS = """
import os, pathlib, sys
if "--multiprocessing-fork" in sys.orig_argv and pathlib.Path({switch!r}).exists():
    os._exit({code})
"""


@pytest.mark.usefixtures("new_pythons")
async def test_workers_that_keep_failing_at_the_start_are_replaced_after_growing_pauses(
    home: Home, endpoints: Endpoints, tmp_path: Path
) -> None:
    switch = tmp_path / "fails"
    switch.touch()
    (tmp_path / "sitecustomize.py").write_text(FAILS.format(switch=str(switch), code=7))
    async with two_workers(home, endpoints, PYTHONPATH=f"{tmp_path}:{REPOSITORY}") as fourways, home.client() as client:
        await fourways.shows("It is replaced in 2 s.")
        pauses = Counter(re.findall(r"ended with exit code 7, soon after its start\. It is (.+)\.", fourways.screen))
        assert pauses["replaced in 1 s"] == 2
        # One at once, and one after a second, for each worker.
        assert len(DEATH.findall(fourways.screen)) <= 4
        switch.unlink()
        await eventually(lambda: _is_closed(client))
        fourways.send(signal.SIGTERM)
        assert await fourways.code() == 0


@pytest.mark.usefixtures("new_pythons")
async def test_sigterm_while_a_replacement_waits_stops_the_service_at_once(
    home: Home, endpoints: Endpoints, tmp_path: Path
) -> None:
    switch = tmp_path / "fails"
    switch.touch()
    (tmp_path / "sitecustomize.py").write_text(FAILS.format(switch=str(switch), code=7))
    async with two_workers(home, endpoints, PYTHONPATH=f"{tmp_path}:{REPOSITORY}") as fourways:
        await fourways.shows("It is replaced in 4 s.")
        fourways.send(signal.SIGTERM)
        assert await fourways.code() == 0
        assert "replaced in 8 s" not in fourways.screen


@pytest.mark.usefixtures("new_pythons")
async def test_a_service_none_of_whose_workers_can_start_stops(
    home: Home, endpoints: Endpoints, tmp_path: Path
) -> None:
    switch = tmp_path / "fails"
    switch.touch()
    (tmp_path / "sitecustomize.py").write_text(FAILS.format(switch=str(switch), code=STARTUP_FAILURE))
    async with two_workers(home, endpoints, PYTHONPATH=f"{tmp_path}:{REPOSITORY}") as fourways:
        assert await fourways.code() == STARTUP_FAILURE
        assert "could not start, and has said why: the service stops." in fourways.screen


@pytest.mark.usefixtures("new_pythons")
async def test_a_replacement_that_cannot_start_is_tried_again_while_the_others_serve(
    home: Home, endpoints: Endpoints, tmp_path: Path
) -> None:
    """A worker is killed while a file that DATABASE_URL names is being replaced."""
    switch = tmp_path / "fails"
    (tmp_path / "sitecustomize.py").write_text(FAILS.format(switch=str(switch), code=STARTUP_FAILURE))
    counted = tmp_path / "counted"
    async with two_workers(
        home, endpoints, PYTHONPATH=f"{tmp_path}:{REPOSITORY}", PROMETHEUS_MULTIPROC_DIR=str(counted)
    ) as fourways:

        async def both_have_started() -> bool:
            return len(list(counted.glob("*.db"))) == 2 * len(KINDS)

        await eventually(both_have_started)
        dead, other = fourways.tree().workers()
        switch.touch()
        dead.kill()
        await fourways.shows("could not start, and has said why, soon after its start. It is replaced in 1 s.")
        async with home.client() as client:
            await eventually(lambda: _is_closed(client))
        switch.unlink()

        async def two_run() -> bool:
            return len(fourways.tree().workers()) == 2

        await fourways.shows("could not start, and has said why: worker ")
        await eventually(two_run)
        assert other.is_running()
        fourways.send(signal.SIGTERM)
        assert await fourways.code() == 0


async def test_sigterm_while_a_worker_hangs_closes_the_port_at_once(home: Home, endpoints: Endpoints) -> None:
    async with two_workers(home, endpoints) as fourways, home.client() as client:
        await eventually(lambda: _is_closed(client))
        hanging, other = fourways.tree().workers()
        hanging.suspend()
        dead = other.pid
        other.kill()
        await fourways.shows(f"Worker {dead} was ended by SIGKILL: ")  # The hanging one does not delay its replacement.
        fourways.send(signal.SIGTERM)

        async def nobody_else_runs() -> bool:
            return [worker.pid for worker in fourways.tree().workers()] == [hanging.pid]

        await eventually(nobody_else_runs)
        hanging.resume()
        assert await fourways.code() == 0


@pytest.mark.prove
async def test_a_worker_that_hangs_while_the_service_stops_is_killed(home: Home, endpoints: Endpoints) -> None:
    stores = {"REDIS_URL": endpoints.redis_url, "DATABASE_URL": endpoints.database_url, "PYTHONPATH": str(REPOSITORY)}
    variables = {**home.environment, **stores}
    command = ("python", "-c", IMPATIENT, "serve", "--workers", "2")
    async with terminal(home.screen(), *command, **variables) as fourways, home.client() as client:
        await fourways.shows("Fourways serves at")
        await eventually(lambda: _is_closed(client))
        hanging = fourways.tree().workers()[0]
        hanging.suspend()
        fourways.send(signal.SIGTERM)
        assert await fourways.code() == 0
        assert f"Worker {hanging.pid} did not end in 15 s, and was killed." in fourways.screen


async def test_sigttin_adds_a_worker_and_sigttou_removes_it(home: Home, endpoints: Endpoints) -> None:
    async with two_workers(home, endpoints) as fourways, home.client() as client:
        await eventually(lambda: _is_closed(client))

        async def works(workers: int) -> bool:
            return len(fourways.tree().workers()) == workers

        fourways.send(signal.SIGTTIN)
        await eventually(lambda: works(3))
        fourways.send(signal.SIGTTOU)
        await eventually(lambda: works(2))


async def test_a_worker_that_hangs_when_sigttou_removes_it_holds_nothing_up(home: Home, endpoints: Endpoints) -> None:
    async with two_workers(home, endpoints) as fourways, home.client() as client:
        await eventually(lambda: _is_closed(client))
        other, last = sorted(fourways.tree().workers(), key=lambda worker: worker.create_time())
        last.suspend()
        fourways.send(signal.SIGTTOU)
        other.kill()
        await fourways.shows(f"Worker {other.pid} was ended by SIGKILL: ")
        last.resume()

        async def one_runs() -> bool:
            return len(fourways.tree().workers()) == 1 and not psutil.pid_exists(last.pid)

        await eventually(one_runs)
