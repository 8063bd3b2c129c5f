"""Starts Redis and Postgres with the first process of an app, and stops them with its last.

    enter   Redis, then Postgres: adopted if they still run, else started
    leave   the last process stops Redis, then Postgres, each with a deadline; Postgres even if Redis does not stop

When to use: in the lifespan (in a thread, because it blocks), around all that needs the servers. Development only.

What can go wrong: see `EmbeddedError`. A start that fails leaves nothing running.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from app.embedded.account import postgres_account
from app.embedded.binaries import postgres_install, redis_program
from app.embedded.directory_lock import DirectoryLock
from app.embedded.endpoints import Endpoints
from app.embedded.errors import EmbeddedError
from app.embedded.home import find_home, make_home, postgres_directory
from app.embedded.postgres_server import SOCKET as POSTGRES_SOCKET
from app.embedded.postgres_server import PostgresServer
from app.embedded.redis_server import SOCKET as REDIS_SOCKET
from app.embedded.redis_server import RedisServer

Report = Callable[[str], None]


def _silent(line: str) -> None:
    """Discards a line."""


@contextmanager
def embedded_servers(directory: Path, *, report: Report = _silent) -> Iterator[Endpoints]:
    """Runs both servers while the block lasts, with their data in this directory. `report` gets one line per step."""
    redis_program("server")
    postgres_install()
    directory = _made(directory)
    lock = DirectoryLock(directory)
    servers: list[RedisServer | PostgresServer] = []

    def start(first: bool) -> None:
        try:
            redis_home = make_home(directory / "redis", REDIS_SOCKET)
            servers.append(RedisServer(redis_home, directory / "redis.log"))
            _start(servers[-1], first, report)
            account = postgres_account()
            postgres_home = make_home(postgres_directory(directory, account), POSTGRES_SOCKET, account)
            servers.append(PostgresServer(postgres_home, directory / "postgres.log"))
            _start(servers[-1], first, report)
        except OSError as error:
            raise EmbeddedError(f"The embedded servers cannot use {directory}: {error}.") from error

    def stop() -> None:
        with ExitStack() as stack:
            for server in reversed(servers):
                stack.callback(_stop, server, report)

    try:
        with lock.shared(start=start, stop=stop):
            redis, postgres = servers
            yield Endpoints(redis.url, postgres.url)
    finally:
        for server in servers:
            server.let_go()


def running_endpoints(directory: Path) -> Endpoints | None:
    """Returns the endpoints of the servers that answer in this directory, or None. Starts and creates nothing."""
    try:
        redis_home = find_home(directory / "redis", REDIS_SOCKET)
        postgres_home = find_home(directory / "postgres", POSTGRES_SOCKET)
        if redis_home is None or postgres_home is None:
            return None
        redis = RedisServer(redis_home, directory / "redis.log")
        postgres = PostgresServer(postgres_home, directory / "postgres.log")
        if redis.version() is None or postgres.version() is None:
            return None
    except OSError:  # They belong to another user, whose directories this one cannot enter.
        return None
    return Endpoints(redis.url, postgres.url)


def _start(server: RedisServer | PostgresServer, first: bool, report: Report) -> None:
    started = server.start()
    how = "started" if started else "adopted, it was still running after a crash" if first else "joined"
    report(f"{server.name} {server.version()} {how}")


def _stop(server: RedisServer | PostgresServer, report: Report) -> None:
    if server.stop():
        report(f"{server.name} stopped")


def _made(directory: Path) -> Path:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EmbeddedError(
            f"{directory} cannot be made: {error.strerror}. Set FOURWAYS_DIRECTORY to another one."
        ) from error
    return directory.resolve()
