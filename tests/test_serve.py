"""`fourways serve`, as a user runs it."""

import asyncio
import os
import re
import shutil
import signal
from asyncio.subprocess import PIPE
from pathlib import Path

import httpx
import pytest

from app.embedded import Endpoints
from tests.eventually import PATIENCE, eventually
from tests.faults.postgres_wire import PostgresWire
from tests.fork_server import PROGRAMS, ForkServer, start
from tests.fresh_database import fresh_database
from tests.home import Home
from tests.keep_alive import Answer, KeepAlive
from tests.process_tree import ProcessTree
from tests.service import Service, free_port, ready
from tests.terminal import Terminal, terminal

SANE = 15.0
"""Seconds within which Ctrl-C must have stopped everything, on a busy machine."""


@pytest.fixture
def new_pythons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command here is a Python that begins by itself."""
    monkeypatch.setattr(ForkServer, "current", None)


@pytest.mark.usefixtures("new_pythons")
@pytest.mark.parametrize("workers", ["1", "3"])
async def test_a_fresh_directory_serves_demo_data_until_ctrl_c(home: Home, workers: str) -> None:
    async with home.serves("--workers", workers) as (fourways, client):
        assert (await client.get("/users/1")).json()["name"] == "Ada Lovelace"
        assert (await client.get("/products/KETTLE-1")).json()["price"] == "19.90"
        tree = fourways.tree()
        assert tree.servers() == {"redis-server": 1, "postgres": 1}
        fourways.ctrl_c()
        assert await fourways.code() == 0
        assert await tree.gone() < SANE
    steps = [line for line in fourways.screen.splitlines() if line and not line.startswith(" ")]
    assert [re.sub(r"[\d.]{3,}|http\S+", "…", step) for step in steps] == [
        "Redis … started",
        "Postgres … started",
        "Bringing the schema up to date",
        "Demo data is there: 10 users, 8 products, stock of 8, views of 6 pages",
        "Fourways serves at … Ctrl-C stops it. What to try:",
        "Redis stopped",
        "Postgres stopped",
        "Stopped.",
    ]


async def test_sigterm_stops_everything(home: Home) -> None:
    async with home.serves() as (fourways, _):
        await _stops_everything(fourways)


async def test_metrics_of_several_workers_add_up_and_sigterm_stops_everything(home: Home) -> None:
    async with home.serves("--workers", "3") as (fourways, _):
        # Each request uses a new connection, so that each worker gets some.
        for _ in range(30):
            assert (await _asked(home, "/users/1")).status == 200
        totals = []
        for _ in range(10):
            live = (await _asked(home, "/strategies")).json()[0]["live"]
            totals.append(live["hits"] + live["misses"] + live["collapsed"])
        assert totals == [30] * 10
        await _stops_everything(fourways)


async def _stops_everything(fourways: Terminal) -> None:
    tree = fourways.tree()
    fourways.send(signal.SIGTERM)
    assert await fourways.code() == 0
    assert await tree.gone() < SANE
    assert "Traceback" not in fourways.screen


async def _asked(home: Home, path: str) -> Answer:
    connection = await KeepAlive.to(home.url)
    try:
        return await connection.ask(path)
    finally:
        await connection.close()


@pytest.mark.usefixtures("new_pythons")
@pytest.mark.parametrize("workers", ["1", "3"])
async def test_repeated_ctrl_c_still_stops_everything(home: Home, workers: str) -> None:
    async with home.serves("--workers", workers) as (fourways, _):
        tree = fourways.tree()
        fourways.ctrl_c()

        async def is_over() -> bool:
            if tree.processes[0] in tree.alive():
                fourways.ctrl_c()
            return not tree.alive()

        await eventually(is_over)
        assert await fourways.code() == 0
    assert fourways.screen.endswith("Redis stopped\nPostgres stopped\nStopped.\n")
    assert "Traceback" not in fourways.screen


@pytest.mark.usefixtures("new_pythons")
async def test_ctrl_c_while_workers_start_stops_them_quietly(home: Home) -> None:
    async with home.runs("serve", "--workers", "3") as fourways:
        await fourways.shows("Fourways serves at")
        tree = fourways.tree()

        async def workers_are_born() -> bool:
            nonlocal tree
            tree = fourways.tree()
            return len(tree.workers()) == 3

        await eventually(workers_are_born)
        fourways.ctrl_c()
        assert await fourways.code() == 0, fourways.screen
        assert await tree.gone() < SANE
    assert "Traceback" not in fourways.screen
    assert fourways.screen.endswith("Stopped.\n")


NOHUP = """
import signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from app.__main__ import main
main()
"""


async def is_alive(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/health/live")).is_success
    except httpx.TransportError:
        return False


ASKED = """
from app.__main__ import main
from app.supervisor import Worker

is_lost = Worker.is_lost

def asked(worker):
    lost = is_lost(worker)
    print("asked", flush=True)
    return lost

Worker.is_lost = asked
main()
"""


@pytest.mark.usefixtures("new_pythons")
async def test_sigterm_to_the_group_while_workers_start_stops_them_soon(
    home: Home, endpoints: Endpoints, tmp_path: Path
) -> None:
    """The supervisor pings a worker that is still importing · SIGTERM to the group, as systemd sends it, ends that
    worker · the worker never answers the ping"""
    (tmp_path / "sitecustomize.py").write_text(
        'import sys, time\nif "--multiprocessing-fork" in sys.orig_argv:\n    time.sleep(60)\n'
    )
    stores = {"REDIS_URL": endpoints.redis_url, "DATABASE_URL": endpoints.database_url}
    async with terminal(
        home.screen(), "python", "-c", ASKED, "serve", "--workers", "3",
        PYTHONPATH=str(tmp_path), **stores, **home.environment,
    ) as fourways:  # fmt: skip
        await fourways.shows("asked")
        tree = fourways.tree()
        os.killpg(fourways.pid, signal.SIGTERM)
        assert await tree.gone() < SANE, fourways.screen
        assert await fourways.code() == 0, fourways.screen
    assert fourways.screen.endswith("Stopped.\n")


@pytest.mark.usefixtures("new_pythons")
@pytest.mark.parametrize("step", ["Redis", "Postgres", "Bringing", "Demo"])
async def test_ctrl_c_during_startup_leaves_nothing_behind(home: Home, step: str) -> None:
    async with home.runs("serve") as fourways:
        await fourways.shows(step)
        tree = fourways.tree()
        fourways.ctrl_c()
        assert await fourways.code() == 0, fourways.screen
        assert await tree.gone() < SANE
    assert "Traceback" not in fourways.screen


SWALLOWED = """
import signal
import weakref
import uvicorn, uvicorn.supervisors.multiprocess
from app.__main__ import main

class Thing:
    pass

def hooked(owner, name):
    before = getattr(owner, name)
    def after(*arguments, **named):
        thing = Thing()
        held = weakref.ref(thing, lambda gone: signal.raise_signal(signal.SIGINT))
        del thing
        return before(*arguments, **named)
    setattr(owner, name, after)

hooked({place})
main()
"""


@pytest.mark.usefixtures("new_pythons")
@pytest.mark.parametrize(
    ("workers", "place"),
    [
        ("1", "uvicorn.Config, '__init__'"),
        ("1", "uvicorn.Config, 'get_loop_factory'"),
        ("1", "uvicorn.Server, 'startup'"),
        ("3", "uvicorn.supervisors.multiprocess.Multiprocess, '__init__'"),
    ],
)
async def test_ctrl_c_stops_the_service_even_where_python_drops_exceptions(
    home: Home, endpoints: Endpoints, workers: str, place: str
) -> None:
    """Ctrl-C is handled in the callback of a weak reference, which may happen while an event loop is created or closed
    · Python drops the exception that the handler raises there"""
    async with terminal(
        home.screen(), "python", "-c", SWALLOWED.replace("{place}", place), "serve", "--workers", workers,
        REDIS_URL=endpoints.redis_url, DATABASE_URL=endpoints.database_url, **home.environment,
    ) as fourways:  # fmt: skip
        assert await fourways.code() == 0, fourways.screen
    assert fourways.screen.endswith("Stopped.\n")
    assert "ignored" not in fourways.screen


BORN = """
import os, signal, subprocess
from app.__main__ import main

begin = subprocess.Popen.__init__

def begun(child, command, *more, **named):
    begin(child, command, *more, **named)
    {reached}

subprocess.Popen.__init__ = begun
main()
"""


@pytest.mark.usefixtures("new_pythons")
@pytest.mark.parametrize(
    ("is_new", "reached"),
    [
        (True, "if str(command[0]).endswith('psql'): os.killpg(0, signal.SIGINT)"),
        (False, "if command[-1] == '--version': os.killpg(0, signal.SIGINT)"),
        # A server is in our group, too, until it has its own session.
        (True, "if 'redis-server' in str(command[0]): child.kill(); signal.raise_signal(signal.SIGINT)"),
    ],
)
async def test_ctrl_c_that_also_reaches_a_new_child_process_is_no_failure(
    home: Home, is_new: bool, reached: str
) -> None:
    """A terminal sends Ctrl-C to the whole group, and so to a program that checks whether a server is ready."""
    if not is_new:
        async with home.serves() as (fourways, _):
            fourways.ctrl_c()
            assert await fourways.code() == 0
    async with terminal(
        home.screen(), "python", "-c", BORN.replace("{reached}", reached), "serve", **home.environment
    ) as fourways:
        assert await fourways.code() == 0, fourways.screen
    assert fourways.screen.endswith("Stopped.\n")
    assert "None" not in fourways.screen


@pytest.mark.parametrize("workers", ["1", "3"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_stopping_service_answers_pending_requests_and_accepts_no_more(
    home: Home, endpoints: Endpoints, workers: str, number: signal.Signals
) -> None:
    """`kill` sends SIGTERM to the command, and a terminal that is closed sends SIGHUP to the whole group."""
    async with (
        PostgresWire(endpoints.database_url) as wire,
        wire.holding(r"^SELECT .*\bFROM users\b") as held,
        home.runs(
            "serve", "--workers", workers,
            REDIS_URL=endpoints.redis_url, DATABASE_URL=wire.url, FOURWAYS_DATABASE_TIMEOUT="60",
        ) as fourways,
    ):  # fmt: skip
        await fourways.shows("Fourways serves at")
        connection = await KeepAlive.to(home.url)
        await connection.send("/users/1")
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        if number is signal.SIGHUP:
            os.killpg(fourways.pid, number)
        else:
            fourways.send(number)

        async def takes_nothing_more() -> bool:
            try:
                await (await KeepAlive.to(home.url)).close()
            except OSError:
                return True
            return False

        await eventually(takes_nothing_more)
        held.release()
        assert (await connection.answer()).status == 404
        await connection.close()
        assert await fourways.code() == 0
    assert "Traceback" not in fourways.screen


@pytest.mark.usefixtures("new_pythons")
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_closed_terminal_stops_everything_though_nothing_more_can_be_printed(home: Home, workers: str) -> None:
    master, slave = os.openpty()
    environment = {**os.environ, **home.environment}
    with os.fdopen(slave, "r+b", buffering=0) as terminal:
        fourways = start(
            [str(PROGRAMS / "fourways"), "serve", "--workers", workers], environment, screen=terminal, session=True
        )
    await ready(Service(home.url, fourways))
    tree = ProcessTree.of(fourways.pid)
    assert tree.servers() == {"redis-server": 1, "postgres": 1}
    os.close(master)
    os.killpg(fourways.pid, signal.SIGHUP)
    assert await asyncio.to_thread(fourways.wait, PATIENCE) == 0
    assert await tree.gone() < SANE


@pytest.mark.usefixtures("new_pythons")
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_under_nohup_the_service_outlives_its_terminal(home: Home, endpoints: Endpoints, workers: str) -> None:
    stores = {"REDIS_URL": endpoints.redis_url, "DATABASE_URL": endpoints.database_url}
    async with (
        terminal(
            home.screen(), "python", "-c", NOHUP, "serve", "--workers", workers, **stores, **home.environment
        ) as fourways,
        home.client() as client,
    ):
        await fourways.shows("Fourways serves at")
        os.killpg(fourways.pid, signal.SIGHUP)
        await eventually(lambda: is_alive(client))
        assert {_hangs_up(process.pid) for process in fourways.tree().workers()} == {False}
        assert not _hangs_up(fourways.pid)
        fourways.send(signal.SIGTERM)
        assert await fourways.code() == 0


def _hangs_up(pid: int) -> bool:
    """Whether SIGHUP reaches the process at all."""
    masks = dict(re.findall(r"(Sig\w+):\s*(\w+)", Path(f"/proc/{pid}/status").read_text()))
    return not (int(masks["SigIgn"], 16) | int(masks["SigBlk"], 16)) & 1


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_options_and_settings_reach_each_worker(home: Home, endpoints: Endpoints, workers: str) -> None:
    """The prefix of links, and the queue of connections: a worker that listens again must not change it."""
    async with (
        home.runs(
            "serve", "--workers", workers, "--root-path", "/api",
            REDIS_URL=endpoints.redis_url, DATABASE_URL=endpoints.database_url, FOURWAYS_LISTEN_BACKLOG="77",
        ),
        home.client() as client,
    ):  # fmt: skip
        await eventually(lambda: is_alive(client))
        assert 'href="/api/users/1"' in (await client.get("/")).text
        if shutil.which("ss") is None:
            pytest.skip("There is no ss on this machine, which shows the length of the queue.")
        listening = await asyncio.create_subprocess_exec("ss", "-Hltn", f"sport = :{home.port}", stdout=PIPE)
        shown, _ = await listening.communicate()
        assert shown.split()[2] == b"77"


async def test_a_second_service_reports_the_owner_of_its_directory_or_a_taken_port(home: Home, tmp_path: Path) -> None:
    async with home.serves() as (fourways, client):
        code, said = await home.complains("serve", PORT=str(free_port()))
        assert code == 1
        assert said == (
            f"{home.environment['FOURWAYS_DIRECTORY']} is already in use by process {fourways.pid}; stop it, or run in "
            "another directory.\n"
        )
        code, said = await home.complains("serve", FOURWAYS_DIRECTORY=str(tmp_path / "other"))
        assert code == 1
        assert said == (
            f"Port {home.port} of 127.0.0.1 cannot be had (Address already in use): stop what listens there, or choose "
            f"another one, as in PORT={int(home.port) + 1}.\n"
        )
        assert not (tmp_path / "other").exists(), "The port is tried before anything is started."
        assert (await client.get("/users/1")).status_code == 200


@pytest.mark.usefixtures("new_pythons")
async def test_ctrl_c_during_the_imports_ends_it_without_output(home: Home, tmp_path: Path) -> None:
    """The command imports uvicorn, and is held there · Ctrl-C arrives"""
    (tmp_path / "uvicorn.py").write_text('import time\nprint("held", flush=True)\ntime.sleep(60)\n')
    async with home.runs("serve", PYTHONPATH=str(tmp_path)) as fourways:
        await fourways.shows("held")
        fourways.ctrl_c()
        assert await fourways.code() == -signal.SIGINT
        assert fourways.screen == "held\n"


@pytest.mark.parametrize("workers", ["1", "3"])
async def test_after_kill_9_the_next_start_adopts_the_servers_and_their_data(home: Home, workers: str) -> None:
    async with home.serves("--workers", workers) as (fourways, client):
        user = (await client.post("/users", json={"name": "Ada", "email": "ada@example.org"})).json()
        tree = fourways.tree()
        fourways.send(signal.SIGKILL)
        assert await fourways.code() == -signal.SIGKILL

        async def only_servers_are_left() -> bool:
            return tree.names() == {"redis-server", "postgres"}

        await eventually(only_servers_are_left)
    async with home.serves() as (fourways, client):
        assert fourways.screen.count("adopted") == 2
        assert (await client.get(f"/users/{user['id']}")).json() == user
        fourways.ctrl_c()
        assert await fourways.code() == 0
        await tree.gone()


async def test_a_missing_schema_is_reported_at_startup_and_to_every_client(home: Home, endpoints: Endpoints) -> None:
    async with fresh_database(endpoints.database_url) as url:
        stores = {"REDIS_URL": endpoints.redis_url, "DATABASE_URL": url}
        async with home.runs("serve", **stores) as fourways, home.client() as client:
            await fourways.shows("Fourways serves at")
            assert "The database is not ready: a migration is missing: run `alembic upgrade head`" in fourways.screen
            unready = await client.get("/health/ready")
            assert unready.status_code == 503
            assert unready.json()["parts"]["schema"] == "a migration is missing: run `alembic upgrade head`"
            for path in ("/users/1", "/products/KETTLE-1"):
                problem = await client.get(path)
                assert problem.status_code == 503
                assert problem.json()["detail"] == "The database lacks a migration: run `alembic upgrade head`."

            # After the migration, the service needs no restart.
            async with terminal(home.screen(), "alembic", "upgrade", "head", **stores) as alembic:
                assert await alembic.code() == 0
            assert (await client.get("/users/1")).status_code == 404

            async def is_ready() -> bool:
                return (await client.get("/health/ready")).status_code == 200

            await eventually(is_ready)


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid"])
async def test_an_address_of_no_machine_here_is_refused_with_the_setting_to_change(home: Home, host: str) -> None:
    async with home.runs("serve", FOURWAYS_HOST=host) as fourways:
        assert await fourways.code() == 1
        screen = " ".join(fourways.screen.split())
    assert screen.startswith(f"Port {home.port} of {host} cannot be had (")
    assert screen.endswith("): name an address of this machine in FOURWAYS_HOST.")


async def test_tables_that_are_hidden_are_not_reported_as_missing(home: Home, endpoints: Endpoints) -> None:
    stores = {
        "REDIS_URL": endpoints.redis_url,
        "DATABASE_URL": f"{endpoints.database_url}&options=-c%20search_path%3Dnowhere",
    }
    async with home.runs("serve", **stores) as fourways:
        await fourways.shows("Fourways serves at")
        screen = " ".join(fourways.screen.split())
    assert "The database is not ready: its search_path is nowhere, and the tables are in " in screen
