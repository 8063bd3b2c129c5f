"""One Postgres on one directory, and the files that a crash leaves in it."""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from app.embedded import EmbeddedError, Endpoints
from app.embedded.account import postgres_account
from app.embedded.home import Home, make_home
from app.embedded.postgres_server import SOCKET, PostgresServer
from tests.embedded.apps import innocent, kill_server, postmaster_pid, servers_below, sql


@pytest.fixture
def home(directory: Path) -> Home:
    return make_home(directory / "postgres", SOCKET, postgres_account())


@pytest.fixture
def server(base: Path, home: Home) -> Iterator[PostgresServer]:
    server = PostgresServer(home, base / "postgres.log")
    assert server.start()
    yield server
    server.stop()


def test_a_recycled_pid_neither_prevents_a_start_nor_gets_a_signal(
    base: Path, home: Home, server: PostgresServer
) -> None:
    data = home.directory / "data"
    stale = (data / "postmaster.pid").read_text()
    lock = home.sockets / f"{SOCKET}.lock"
    stale_lock = lock.read_text()
    kill_server(postmaster_pid(Endpoints("", server.url)))
    account = postgres_account()
    with innocent(None if account is None else account.uid) as bystander:
        for path, text in ((data / "postmaster.pid", stale), (lock, stale_lock)):
            path.write_text("\n".join([str(bystander.pid), *text.splitlines()[1:]]) + "\n")
        assert server.start()
        assert bystander.poll() is None
        pid = data / "postmaster.pid"
        pid.write_text("\n".join([str(bystander.pid), *pid.read_text().splitlines()[1:]]) + "\n")
        assert server.stop()
        assert bystander.poll() is None


def test_a_stop_ends_open_sessions(home: Home, server: PostgresServer) -> None:
    sql(Endpoints("", server.url), "create table t as select 1")
    assert server.stop()
    assert servers_below([home.directory]) == []
    assert server.stop() is False


def test_a_second_server_is_never_started(base: Path, home: Home, server: PostgresServer) -> None:
    assert PostgresServer(home, base / "postgres.log").start() is False
    assert postmaster_pid(Endpoints("", server.url)) in {process.pid for process in servers_below([home.directory])}


def test_variables_of_the_shell_do_not_redirect_postgres(
    base: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGPORT": "5999", "PGDATA": "/nowhere", "PGOPTIONS": "-c nonsense=1", "LC_ALL": "xx"}.items():
        monkeypatch.setenv(name, value)
    server = PostgresServer(home, base / "postgres.log")
    assert server.start()
    assert server.stop()


def test_a_postgres_that_is_not_ready_in_time_is_stopped(
    base: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.embedded.server_process.START_SECONDS", 0.0)
    with pytest.raises(EmbeddedError, match="Postgres did not answer in 0 s"):
        PostgresServer(home, base / "postgres.log").start()
    assert servers_below([home.directory]) == []


def test_data_of_another_version_is_refused(base: Path, home: Home, server: PostgresServer) -> None:
    server.stop()
    (home.directory / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(EmbeddedError, match="was written by Postgres 9, and this is Postgres 18"):
        PostgresServer(home, base / "postgres.log").start()


def test_a_dead_postmaster_is_not_replaced_while_its_sessions_still_run(
    home: Home, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL ends the postmaster · a session, paused here, lives on · a new postmaster would write to its files"""
    monkeypatch.setattr("app.embedded.server_process.START_SECONDS", 0.5)
    postmaster = psutil.Process(postmaster_pid(Endpoints("", server.url)))
    session = postmaster.children()[0]
    session.suspend()
    postmaster.kill()
    postmaster.wait(10)
    with pytest.raises(EmbeddedError, match="still uses"):
        server.start()
    assert session.is_running()
    session.resume()
    monkeypatch.undo()
    assert server.start()


def test_postgres_does_not_run_as_root(server: PostgresServer) -> None:
    account = postgres_account()
    expected = os.geteuid() if account is None else account.uid
    pid = postmaster_pid(Endpoints("", server.url))
    assert set(psutil.Process(pid).uids()) == {expected}
