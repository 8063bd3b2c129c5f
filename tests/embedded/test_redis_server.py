"""One Redis on one directory."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.embedded import EmbeddedError
from app.embedded.binaries import redis_program
from app.embedded.home import Home, make_home
from app.embedded.redis_server import SOCKET, RedisServer
from app.embedded.waiting import wait_until
from tests.embedded.apps import innocent, servers_below


@pytest.fixture
def home(base: Path) -> Home:
    return make_home(base / "redis", SOCKET)


@pytest.fixture
def server(base: Path, home: Home) -> Iterator[RedisServer]:
    server = RedisServer(home, base / "redis.log")
    assert server.start()
    yield server
    server.stop()


def test_a_second_server_is_never_started(base: Path, home: Home, server: RedisServer) -> None:
    assert RedisServer(home, base / "redis.log").start() is False
    assert len(servers_below([home.directory])) == 1


def test_a_second_redis_is_not_started_beside_one_that_hangs(
    base: Path, home: Home, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.embedded.server_process.START_SECONDS", 0.5)
    (process,) = servers_below([home.directory])
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(EmbeddedError, match=rf"\(process {process.pid}\) still uses {home.directory} but does not"):
        RedisServer(home, base / "redis.log").start()
    assert len(servers_below([home.directory])) == 1
    process.send_signal(signal.SIGCONT)


def test_a_second_redis_is_not_started_when_the_socket_is_gone(
    base: Path, home: Home, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.embedded.server_process.START_SECONDS", 0.5)
    (home.sockets / SOCKET).rename(home.sockets / "elsewhere")
    with pytest.raises(EmbeddedError, match="does not answer"):
        RedisServer(home, base / "redis.log").start()
    (home.sockets / "elsewhere").rename(home.sockets / SOCKET)


def test_a_foreign_redis_in_the_directory_is_neither_joined_nor_doubled(base: Path, home: Home) -> None:
    socket = home.directory / "other.sock"
    command = [str(redis_program("server")), "--port", "0", "--unixsocket", str(socket), "--dir", str(home.directory)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as other:
        assert wait_until(socket.exists, 10)
        with pytest.raises(EmbeddedError, match=f"process {other.pid}.*this app did not start it"):
            RedisServer(home, base / "redis.log").start()
        other.kill()


def test_a_killed_redis_leaves_no_claim_on_its_directory(home: Home, server: RedisServer) -> None:
    (process,) = servers_below([home.directory])
    process.kill()
    process.wait(10)
    assert server.start()


def test_a_recycled_pid_never_gets_a_signal(home: Home, server: RedisServer) -> None:
    """This code reads no pid from a file: whatever files are left over, the innocent process lives."""
    (process,) = servers_below([home.directory])
    process.kill()
    process.wait(10)
    with innocent() as bystander:
        for name in ("redis.pid", "lock"):
            (home.directory / name).write_text(str(bystander.pid))
        assert server.start()
        assert server.stop()
        assert bystander.poll() is None


def test_data_that_this_redis_would_ignore_is_refused(base: Path, home: Home) -> None:
    said = subprocess.run([redis_program("server"), "--version"], capture_output=True, text=True, check=True).stdout
    if "v=6." not in said:
        pytest.skip("This Redis sees everything that another one writes.")
    (home.directory / "appendonlydir").mkdir()
    with pytest.raises(EmbeddedError, match="was written by Redis 7 or newer"):
        RedisServer(home, base / "redis.log").start()
    assert servers_below([home.directory]) == []
