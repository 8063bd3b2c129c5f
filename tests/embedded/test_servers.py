"""The pair of servers as an app uses it: real servers, real kills."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import psutil  # type: ignore[import-untyped]
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from app.embedded import EmbeddedError, Endpoints, embedded_servers, running_endpoints
from app.embedded.waiting import wait_until
from tests.embedded.apps import (
    is_root,
    kill_all,
    kill_server,
    postmaster_pid,
    redis_client,
    redis_pid,
    running_app,
    servers_below,
    sql,
)
from tests.open_directory import open_directory

NAMES = {
    "spaces, signs and letters": 'it\'s a päth, with 50% +signs & "quotes"',
    "longer than a socket's path may be": "/".join(["a-rather-long-name-of-a-directory"] * 6),
}


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Path, Endpoints]]:
    """A pair for the tests that only read."""
    with open_directory() as base, embedded_servers(base) as endpoints:
        yield base, endpoints


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_the_data_of_both_survives_a_restart(base: Path, name: str) -> None:
    directory = base / name
    with embedded_servers(directory) as endpoints, redis_client(endpoints) as redis:
        redis.set("kept", "yes")
        sql(endpoints, "create table kept as select 'yes' as answer")
    assert running_endpoints(directory) is None
    with embedded_servers(directory) as endpoints, redis_client(endpoints) as redis:
        assert running_endpoints(directory) == endpoints
        assert redis.get("kept") == "yes"
        assert sql(endpoints, "select answer from kept") == "yes"


def test_redis_persists_everything_and_evicts_nothing(running: tuple[Path, Endpoints]) -> None:
    directory, endpoints = running
    wanted = {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "port": "0",
        "dir": str(directory / "redis"),
    }
    with redis_client(endpoints) as redis:
        assert {name: redis.config_get(name)[name] for name in wanted} == wanted


def test_postgres_is_utf8_durable_and_large_enough(running: tuple[Path, Endpoints]) -> None:
    _, endpoints = running
    for name, value in {"fsync": "on", "max_connections": "100", "server_encoding": "UTF8"}.items():
        assert sql(endpoints, f"show {name}") == value
    assert sql(endpoints, "select current_database() || ' ' || current_user") == "fourways fourways"
    assert sql(endpoints, "select lower('ÄÖ')") == "äö"


async def test_asyncpg_and_sqlalchemy_accept_the_url(directory: Path) -> None:
    with embedded_servers(directory / NAMES["spaces, signs and letters"]) as endpoints:
        connection = await asyncpg.connect(endpoints.database_url)
        assert await connection.fetchval("select 1") == 1
        await connection.close()
        engine = create_async_engine(make_url(endpoints.database_url).set(drivername="postgresql+asyncpg"))
        async with engine.connect() as session:
            assert (await session.execute(text("select 1"))).scalar() == 1
        await engine.dispose()


def test_both_servers_can_be_reached_only_through_private_directories(running: tuple[Path, Endpoints]) -> None:
    directory, endpoints = running
    for pid, place in ((redis_pid(endpoints), "redis"), (postmaster_pid(endpoints), "postgres")):
        assert psutil.Process(pid).net_connections(kind="inet") == []
        assert (directory / place).stat().st_mode & 0o777 == 0o700


def test_both_servers_have_their_own_sessions_so_ctrl_c_reaches_only_the_app(
    running: tuple[Path, Endpoints],
) -> None:
    _, endpoints = running
    for pid in (redis_pid(endpoints), postmaster_pid(endpoints)):
        assert os.getsid(pid) == pid


def test_every_step_is_reported_to_the_app(fresh: Path) -> None:
    steps: list[str] = []
    with embedded_servers(fresh, report=steps.append):
        pass
    names = [" ".join(step.split()[::2]) for step in steps[:2]]
    assert names == ["Redis started", "Postgres started"]
    assert steps[2:] == ["Redis stopped", "Postgres stopped"]


def test_a_killed_app_leaves_its_servers_for_the_next_one_to_adopt(directory: Path) -> None:
    with running_app(directory) as app:
        endpoints = app.entered()
        before = redis_pid(endpoints), postmaster_pid(endpoints)
        app.kill()
    steps: list[str] = []
    with embedded_servers(directory, report=steps.append) as endpoints:
        assert (redis_pid(endpoints), postmaster_pid(endpoints)) == before
        assert all(step.endswith("adopted, it was still running after a crash") for step in steps)
        assert len(steps) == 2
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in before)


def test_redis_killed_alone_keeps_its_data(directory: Path) -> None:
    with embedded_servers(directory) as endpoints:
        with redis_client(endpoints) as redis:
            redis.set("kept", "yes")
        kill_server(redis_pid(endpoints))
        assert running_endpoints(directory) is None
    with embedded_servers(directory) as endpoints, redis_client(endpoints) as redis:
        assert redis.get("kept") == "yes"


def test_postgres_killed_alone_keeps_its_data(directory: Path) -> None:
    with embedded_servers(directory) as endpoints:
        sql(endpoints, "create table kept as select 'yes' as answer")
        kill_server(postmaster_pid(endpoints))
        assert running_endpoints(directory) is None
    with embedded_servers(directory) as endpoints:
        assert sql(endpoints, "select answer from kept") == "yes"


@pytest.mark.parametrize("with_its_initdb", [False, True])
def test_a_start_that_was_killed_halfway_is_repaired(fresh: Path, with_its_initdb: bool) -> None:
    """If initdb is not killed with the app, it continues to write, and the next start waits for it."""
    with running_app(fresh) as app:
        assert wait_until(lambda: (fresh / "postgres" / "data.new" / "base").exists(), 30)
        app.kill()
    if with_its_initdb:
        kill_all(servers_below([fresh / "postgres"]))
    with embedded_servers(fresh) as endpoints:
        assert sql(endpoints, "select 1") == "1"
        assert not (fresh / "postgres" / "data.new").exists()


def test_a_failed_start_shows_the_log_and_leaves_nothing_running(directory: Path) -> None:
    with embedded_servers(directory):
        pass
    (directory / "postgres" / "data" / "postgresql.conf").write_text("max_connections = many\n")
    with pytest.raises(EmbeddedError, match=r"(?s)Postgres ended while it started.*many"), embedded_servers(directory):
        pytest.fail("It cannot have started.")
    assert servers_below([directory]) == []


def test_an_error_in_the_app_stops_both_servers(directory: Path) -> None:
    with pytest.raises(ZeroDivisionError), embedded_servers(directory):
        raise ZeroDivisionError
    assert servers_below([directory]) == []


def test_postgres_is_stopped_even_if_redis_does_not_stop(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.embedded.server_process.STOP_SECONDS", 1.0)
    with ExitStack() as app:
        endpoints = app.enter_context(embedded_servers(directory))
        redis, postgres = psutil.Process(redis_pid(endpoints)), postmaster_pid(endpoints)
        redis.send_signal(signal.SIGSTOP)
        with pytest.raises(EmbeddedError, match=rf"Redis \(process {redis.pid}\) did not stop in 1 s"):
            app.close()
    assert not psutil.pid_exists(postgres)
    redis.kill()
    redis.wait(10)


def test_a_directory_without_servers_has_no_endpoints(fresh: Path) -> None:
    assert running_endpoints(fresh) is None
    assert not fresh.exists()


def test_a_file_in_place_of_the_directory_is_reported_in_a_sentence(fresh: Path) -> None:
    fresh.write_text("")
    with pytest.raises(EmbeddedError, match=r"cannot be made: File exists"), embedded_servers(fresh):
        pytest.fail("It cannot have started.")


@pytest.mark.skipif(not is_root(), reason="Only root can become another user.")
def test_an_ordinary_user_can_run_both_servers_but_not_in_a_directory_of_root(base: Path) -> None:
    base.chmod(0o777)
    with running_app(base / "his", "--as-nobody") as app:
        told = app.event()
        if told["event"] == "refused" and "not installed" in told["why"]:
            pytest.skip("The user nobody cannot reach this virtual environment.")
        assert told["event"] == "in", told
        assert (base / "his" / "postgres" / "data").stat().st_uid == (base / "his").stat().st_uid != 0
        app.leave()
    base.chmod(0o755)
    with running_app(base / "not his", "--as-nobody") as app:
        assert (
            app.event()["why"]
            == f"{base}/not his cannot be made: Permission denied. Set FOURWAYS_DIRECTORY to another one."
        )
        app.leave()
