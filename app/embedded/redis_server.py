"""The embedded Redis: appendonly, no eviction, and only a unix socket in a private directory.

    start   the directory is free -> redis-server; it is taken -> wait until that Redis answers, and adopt it
    stop    SHUTDOWN over the socket; Redis writes what is left and syncs

When to use: development only; the bundled versions are old and have known CVEs.

What can go wrong: a crash of the machine (not of a process) loses the last second, due to `appendfsync everysec`.
"""

import re
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from app.embedded.binaries import redis_program
from app.embedded.errors import EmbeddedError
from app.embedded.home import Home
from app.embedded.server_process import ServerProcess
from app.embedded.spawn import said

SOCKET = "redis.sock"
PROGRAMS = frozenset({"redis-server", "valkey-server"})


class RedisServer:
    """The one Redis of a directory."""

    name = "Redis"

    def __init__(self, home: Home, log: Path) -> None:
        self._home = home
        self._socket = home.sockets / SOCKET
        self._process = ServerProcess(self.name, PROGRAMS, home.directory / "lock", home.directory, log)

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self._socket))}?db=0"

    def version(self) -> str | None:
        """Returns the version of the Redis that answers on this socket with this directory, or None."""
        with self._client() as client:
            try:
                if client.config_get("dir")["dir"] != str(self._home.directory):
                    return None
                return str(client.info("server")["redis_version"])
            except (RedisError, OSError):
                return None

    def start(self) -> bool:
        """Starts Redis. Returns True, or False if one that still ran was adopted."""
        # Redis does not lock its directory. Two on one append-only file would mix their writes, and a rewrite by one
        # would drop the other's. The claim serves as the lock.
        claim = self._process.claim_unless(lambda: self.version() is not None)
        if claim is None:
            return False
        with claim:
            self._run(claim)
        return True

    def stop(self) -> bool:
        """Stops Redis. Returns whether it was running."""
        lived = self._process.lives()
        if lived:
            self._shut_down()
        self._process.wait_for_end()
        return lived

    def let_go(self) -> None:
        self._process.let_go()

    def _run(self, claim: BinaryIO) -> None:
        program = redis_program("server")
        self._refuse_older(program)
        options: dict[str, str | Path] = {
            "port": "0",
            "unixsocket": self._socket,
            "unixsocketperm": "700",
            "dir": self._home.directory,
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        command: list[str | Path] = [program]
        for name, value in options.items():
            command += [f"--{name}", value]
        self._process.run(command, claim, lambda: self.version() is not None, None)

    def _refuse_older(self, program: Path) -> None:
        """Refuses a Redis older than the data. Redis 7 moved the append-only file to its own directory; an older Redis
        does not see it there, and would start empty."""
        if not (self._home.directory / "appendonlydir").is_dir():
            return
        found = re.search(rb"v=(\d+)", said([program, "--version"], 30))
        if found is not None and int(found.group(1)) < 7:
            raise EmbeddedError(
                f"The data in {self._home.directory} was written by Redis 7 or newer, and {program} is older and would "
                f"not see it. Run with the Python that you used before, or in another directory."
            )

    def _shut_down(self) -> None:
        with self._client() as client:
            try:
                client.shutdown()
            except (RedisError, OSError):
                return  # Its lock shows whether it ended, not its answer.

    def _client(self) -> Redis:
        return Redis(
            unix_socket_path=str(self._socket),
            socket_timeout=2,
            decode_responses=True,
            encoding_errors="surrogateescape",
            retry=Retry(NoBackoff(), 0),
        )
