"""`fourways serve` and `fourways demo`, as a person runs them."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from app.embedded import Endpoints
from tests.eventually import PATIENCE, eventually
from tests.faults.postgres_wire import PostgresWire
from tests.fresh_database import fresh_database
from tests.keep_alive import KeepAlive
from tests.open_directory import open_directory
from tests.service import free_port
from tests.terminal import Terminal, terminal

SANE = 15.0
"""Seconds within which Ctrl-C must have stopped everything, on a busy machine."""


class Home:
    """A directory with nothing in it, and a port: where one newcomer runs the command."""

    def __init__(self, path: Path) -> None:
        self._path, self._screens = path, 0
        self.port = str(free_port())
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {"FOURWAYS_DIRECTORY": str(path / "data"), "PORT": self.port}

    def screen(self) -> Path:
        """A file for a command to print to."""
        self._screens += 1
        return self._path / f"screen-{self._screens}"

    @asynccontextmanager
    async def runs(self, *arguments: str, **environment: str) -> AsyncIterator[Terminal]:
        """A `fourways` command here."""
        async with terminal(self.screen(), "fourways", *arguments, **{**self.environment, **environment}) as running:
            yield running

    @asynccontextmanager
    async def serves(self, *arguments: str) -> AsyncIterator[tuple[Terminal, httpx.AsyncClient]]:
        """`fourways serve` here, ready, and a client of it."""
        async with self.runs("serve", *arguments) as running, self.client() as client:
            await running.shows("Fourways serves at")

            async def is_ready() -> bool:
                # Where there is more to do than the machine can, trust may lapse for a moment.
                return bool((await client.get("/health/ready")).json()["status"] == "ready")

            await eventually(is_ready)
            yield running, client

    async def complains(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Runs a command that is expected to end by itself: its exit code, and what it printed."""
        async with self.runs(*arguments, **environment) as running:
            return await running.code(), running.screen

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=PATIENCE)


@pytest.fixture
def home() -> Iterator[Home]:
    with open_directory() as directory:
        yield Home(directory)


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


@pytest.mark.parametrize("workers", ["1", "3"])
async def test_sigterm_stops_everything(home: Home, workers: str) -> None:
    async with home.serves("--workers", workers) as (fourways, _):
        tree = fourways.tree()
        fourways.send(signal.SIGTERM)
        assert await fourways.code() == 0
        assert await tree.gone() < SANE
    assert "Traceback" not in fourways.screen


@pytest.mark.parametrize("workers", ["1", "3"])
async def test_ctrl_c_again_and_again_stops_everything_all_the_same(home: Home, workers: str) -> None:
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


async def test_sigterm_to_all_while_workers_start_stops_them_soon(
    home: Home, endpoints: Endpoints, tmp_path: Path
) -> None:
    """The supervisor asks a worker whether it lives, and that is still importing · SIGTERM to the group, as systemd
    sends it, ends that worker · it will never answer"""
    (tmp_path / "sitecustomize.py").write_text(
        'import sys, time\nif "--multiprocessing-fork" in sys.orig_argv:\n    time.sleep(60)\n'
    )
    stores = {"REDIS_URL": endpoints.redis_url, "DATABASE_URL": endpoints.database_url}
    async with home.runs("serve", "--workers", "3", PYTHONPATH=str(tmp_path), **stores) as fourways:
        await fourways.shows("Fourways serves at")

        async def workers_are_born() -> bool:
            return len(fourways.tree().workers()) == 3

        await eventually(workers_are_born)
        await asyncio.sleep(1)  # The supervisor asks after half a second.
        tree = fourways.tree()
        os.killpg(fourways.pid, signal.SIGTERM)
        assert await tree.gone() < SANE, fourways.screen
        assert await fourways.code() == 0, fourways.screen
    assert fourways.screen.endswith("Stopped.\n")


@pytest.mark.parametrize("step", ["Redis", "Postgres", "Bringing", "Demo"])
async def test_ctrl_c_while_it_starts_leaves_nothing_behind(home: Home, step: str) -> None:
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


@pytest.mark.parametrize(
    ("workers", "place"),
    [
        ("1", "uvicorn.Config, '__init__'"),
        ("1", "uvicorn.Config, 'get_loop_factory'"),
        ("1", "uvicorn.Server, 'startup'"),
        ("3", "uvicorn.supervisors.multiprocess.Multiprocess, '__init__'"),
    ],
)
async def test_ctrl_c_where_python_drops_exceptions_stops_it_all_the_same(
    home: Home, endpoints: Endpoints, workers: str, place: str
) -> None:
    """Ctrl-C is handled in the callback of a weak reference, as it may when an event loop is made or ended ·
    what the handler raises there is dropped by Python"""
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


@pytest.mark.parametrize(
    ("is_new", "reached"),
    [
        (True, "if str(command[0]).endswith('psql'): os.killpg(0, signal.SIGINT)"),
        (False, "if command[-1] == '--version': os.killpg(0, signal.SIGINT)"),
        # Between its birth and its own session a server is in our group, too.
        (True, "if 'redis-server' in str(command[0]): child.kill(); signal.raise_signal(signal.SIGINT)"),
    ],
)
async def test_ctrl_c_that_reaches_what_it_has_just_begun_is_no_failure(home: Home, is_new: bool, reached: str) -> None:
    """A terminal sends Ctrl-C to the whole group: to a program, too, that is asked whether a server is there"""
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
async def test_at_its_end_it_answers_what_was_asked_and_takes_nothing_more(
    home: Home, endpoints: Endpoints, workers: str
) -> None:
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
        fourways.send(signal.SIGTERM)

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


async def test_a_second_one_in_the_same_directory_is_told_who_is_there(home: Home) -> None:
    async with home.serves() as (fourways, client):
        code, said = await home.complains("serve", PORT=str(free_port()))
        assert code == 1
        assert said == (
            f"{home.environment['FOURWAYS_DIRECTORY']} is already in use by process {fourways.pid}; stop it, or run in "
            "another directory.\n"
        )
        assert (await client.get("/users/1")).status_code == 200


async def test_a_taken_port_is_told_before_anything_is_started(home: Home, tmp_path: Path) -> None:
    async with home.serves():
        code, said = await home.complains("serve", FOURWAYS_DIRECTORY=str(tmp_path / "other"))
    assert code == 1
    assert said == (
        f"Port {home.port} of 127.0.0.1 cannot be had (Address already in use): stop what listens there, or choose "
        f"another one, as in `PORT={int(home.port) + 1} make run`.\n"
    )
    assert not (tmp_path / "other").exists()


async def test_ctrl_c_while_it_is_still_imported_ends_it_without_a_word(home: Home, tmp_path: Path) -> None:
    """The command imports uvicorn, and is held there · Ctrl-C"""
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
    async with home.serves("--workers", workers) as (fourways, client):
        assert fourways.screen.count("adopted") == 2
        assert (await client.get(f"/users/{user['id']}")).json() == user
        fourways.ctrl_c()
        assert await fourways.code() == 0
        await tree.gone()


async def test_metrics_of_several_workers_add_up(home: Home) -> None:
    async with home.serves("--workers", "3"):
        for _ in range(30):
            async with home.client() as client:
                assert (await client.get("/users/1")).status_code == 200
        totals = []
        for _ in range(10):
            async with home.client() as client:
                live = (await client.get("/strategies")).json()[0]["live"]
                totals.append(live["hits"] + live["misses"] + live["collapsed"])
    assert totals == [30] * 10


async def test_demo_while_serving_keeps_away_from_what_is_there(home: Home) -> None:
    async with home.serves() as (_, client):
        await client.patch("/users/2", json={"name": "Changed"})
        await client.delete("/users/1")
        assert (await client.get("/users/1")).status_code == 404
        for _ in range(2):
            told = "Demo data is there: 9 users, 8 products, stock of 8, views of 6 pages\n"
            assert await home.complains("demo") == (0, told)
            assert (await client.get("/users/1")).status_code == 404
        assert (await client.get("/users/2")).json()["name"] == "Changed"


async def test_demo_where_nothing_runs_says_what_to_start(home: Home) -> None:
    code, said = await home.complains("demo")
    assert code == 1
    assert said == (
        f"Nothing runs in {home.environment['FOURWAYS_DIRECTORY']}: start it with `make run` or `fourways serve`, or "
        "set REDIS_URL and DATABASE_URL.\n"
    )


async def test_demo_without_its_database_says_so(home: Home) -> None:
    nowhere = {"REDIS_URL": "redis://127.0.0.1:1", "DATABASE_URL": "postgresql://127.0.0.1:1/fourways"}
    assert await home.complains("demo", **nowhere) == (1, "The database does not answer.\n")


WRONG = [
    ({"FOURWAYS_USERS_TTL": "abc"}, "FOURWAYS_USERS_TTL is 'abc': it must be a number of seconds."),
    ({"PORT": "0"}, "PORT is '0': input should be greater than or equal to 1."),
    ({"FOURWAYS_REDIS_CONNECTIONS": "[many]"}, "FOURWAYS_REDIS_CONNECTIONS is '[many]': "),
    ({"REDIS_URL": "redis://127.0.0.1"}, "DATABASE_URL is missing: set REDIS_URL and DATABASE_URL, or neither of them"),
    ({"REDIS_URL": "foo"}, "REDIS_URL is 'foo': it must begin with redis:// or rediss:// or unix://."),
]


@pytest.mark.parametrize(("wrong", "sentence"), WRONG)
async def test_a_wrong_setting_is_named_with_its_value(home: Home, wrong: dict[str, str], sentence: str) -> None:
    code, said = await home.complains("serve", **wrong)
    assert code == 1
    assert said.startswith(sentence)
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("workers", "wrong", "sentence"), [*(("1", *wrong) for wrong in WRONG[:2]), *(("3", *wrong) for wrong in WRONG[:1])]
)
async def test_uvicorn_names_a_wrong_setting_and_does_not_try_again(
    tmp_path: Path, workers: str, wrong: dict[str, str], sentence: str
) -> None:
    port = str(free_port())
    async with terminal(
        tmp_path / "screen", "uvicorn", "app.main:app", "--port", port, "--workers", workers, **wrong
    ) as uvicorn:
        code = await uvicorn.code()
    assert sentence in uvicorn.screen
    assert uvicorn.screen.count(sentence) <= int(workers)
    assert "Traceback" not in uvicorn.screen
    assert code == (3 if workers == "1" else 0)  # Of its supervisor uvicorn has no other code.


async def test_help_works_whatever_the_settings_are(home: Home) -> None:
    for command in ("serve", "demo"):
        code, said = await home.complains(command, "--help", PORT="0")
        assert code == 0
        assert "DATABASE_URL" in said


async def test_a_database_without_the_schema_is_told_at_once_and_to_every_client(
    home: Home, endpoints: Endpoints
) -> None:
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

            # Nobody need restart it once the migration is made.
            async with terminal(home.screen(), "alembic", "upgrade", "head", **stores) as alembic:
                assert await alembic.code() == 0
            assert (await client.get("/users/1")).status_code == 404

            async def is_ready() -> bool:
                return (await client.get("/health/ready")).status_code == 200

            await eventually(is_ready)
