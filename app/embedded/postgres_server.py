"""The embedded Postgres: one cluster, the role and database `fourways`, and only a unix socket in a private directory.

    start   the directory is free -> make the cluster if there is none -> postgres; it is taken -> adopt that Postgres
    stop    a fast shutdown: sessions are ended, everything is written

When to use: development only; every client that reaches the socket is trusted.

What can go wrong: the data was written by another major version; the shared memory or the disk is too small.
"""

import os
import signal
import subprocess
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from app.embedded.account import Account, postgres_account
from app.embedded.binaries import postgres_install
from app.embedded.cluster import forget_stale_pids, make_cluster
from app.embedded.home import Home
from app.embedded.identity import parent_of, servers_in, signal_process
from app.embedded.postgres_install import runnable_install
from app.embedded.server_process import ServerProcess
from app.embedded.spawn import plain_environment, said

PORT = 5432
SOCKET = f".s.PGSQL.{PORT}"
ROLE = DATABASE = "fourways"
CONNECTIONS = 100
PROGRAMS = frozenset({"postgres"})


class PostgresServer:
    """The one Postgres of a directory."""

    name = "Postgres"

    def __init__(self, home: Home, log: Path) -> None:
        self._home = home
        self._data = home.directory / "data"
        self._process = ServerProcess(self.name, PROGRAMS, home.directory / "lock", self._data, log)

    @property
    def url(self) -> str:
        # With the port, so that no PGPORT counts.
        return f"postgresql://{ROLE}@/{DATABASE}?host={quote(str(self._home.sockets), safe='/')}&port={PORT}"

    def version(self) -> str | None:
        """Returns the version of the Postgres that answers on this socket with this data directory, or None."""
        if not (self._home.sockets / SOCKET).exists():
            return None
        question = "select current_setting('server_version'), current_setting('data_directory')"
        psql: list[str | Path] = [
            postgres_install() / "bin" / "psql",
            "-XAtq",
            "-F",
            "\n",
            "-d",
            self.url,
            "-c",
            question,
        ]
        environment = {**plain_environment(), "PGCONNECT_TIMEOUT": "5"}
        try:
            version, _, directory = said(psql, 10, environment).partition(b"\n")
        except subprocess.TimeoutExpired:
            return None
        return version.decode() if os.fsdecode(directory.rstrip(b"\n")) == str(self._data) else None

    def start(self) -> bool:
        """Starts Postgres. Returns True, or False if one that still ran was adopted."""
        # The claim may also be held by a killed start's initdb, which is still writing, or by the sessions of a killed
        # postmaster, whose memory a new one must not share. Nothing is touched before they are gone.
        claim = self._process.claim_unless(lambda: self.version() is not None)
        if claim is None:
            return False
        with claim:
            self._run(claim, postgres_account())
        return True

    def stop(self) -> bool:
        """Stops Postgres. Returns whether it was running."""
        lived = self._process.lives()
        if lived:
            self._shut_down()
        self._process.wait_for_end()
        return lived

    def let_go(self) -> None:
        self._process.let_go()

    def _run(self, claim: BinaryIO, account: Account | None) -> None:
        programs = runnable_install(account) / "bin"
        make_cluster(self._data, DATABASE, programs, claim, account)
        forget_stale_pids(self._data, self._home.sockets / SOCKET)
        sockets = str(self._home.sockets).replace('"', '""')
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": f'"{sockets}"',
            "unix_socket_permissions": "0700",
            "port": "5432",
            "max_connections": str(CONNECTIONS),
            "fsync": "on",
            "logging_collector": "off",
            "log_destination": "stderr",
        }
        command: list[str | Path] = [programs / "postgres", "-D", self._data]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        self._process.run(command, claim, lambda: self.version() is not None, account)

    def _shut_down(self) -> None:
        """Requests a fast shutdown, as `pg_ctl stop -m fast` does."""
        # pg_ctl signals whatever process now has the pid in postmaster.pid. So the postmaster is identified by what the
        # kernel reports: a postgres in this data directory that is not the child of another one.
        processes = servers_in(self._data, PROGRAMS)
        pids = {process.pid for process in processes}
        for process in processes:
            if parent_of(process) not in pids:
                signal_process(process, signal.SIGINT)
