"""One server program on one directory: starts it, detects whether it is alive, waits for its end.

    start   lock the lock file -> the server inherits the open file, and the lock with it -> close this process's copy
    stop    tell the server -> the lock is free when its last process is gone

The kernel decides whether a server runs, never a pid in a file: the lock is held exactly as long as a process of that
server is alive (including a child, such as a Postgres session), whatever happens to the app, and no other process ever
has it. So two servers never run on one directory, and a recycled pid does no harm.
"""

import fcntl
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from app.embedded.account import Account
from app.embedded.errors import EmbeddedError
from app.embedded.identity import servers_in
from app.embedded.spawn import end, spawn
from app.embedded.waiting import PAUSE_SECONDS, wait_until

START_SECONDS = 60.0
STOP_SECONDS = 30.0


class ServerProcess:
    """The one process that may serve a directory, whoever started it."""

    def __init__(self, name: str, programs: frozenset[str], lock: Path, directory: Path, log: Path) -> None:
        self._name, self._programs = name, programs
        self._lock, self._directory, self._log = lock, directory, log
        self._child: subprocess.Popen[bytes] | None = None

    def claim_unless(self, answers: Callable[[], bool]) -> BinaryIO | None:
        """Returns the claim, to start a server, or None if one is alive and answers."""
        deadline = time.monotonic() + START_SECONDS
        # While another process has the claim, nothing is started: that server is loading its data, or ending, or hangs.
        while (claim := self.claim()) is None:
            if answers():
                return None
            if time.monotonic() >= deadline:
                raise EmbeddedError(
                    f"{self._name} of an earlier run ({self._who()}) still uses {self._directory} but does not "
                    f"answer. End that process."
                )
            time.sleep(PAUSE_SECONDS)
        return claim

    def claim(self) -> BinaryIO | None:
        """Returns the locked file that the server must inherit, or None while a server is alive."""
        # O_NOFOLLOW, because root may open this file in a directory that an unprivileged user owns.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.fdopen(os.open(self._lock, flags, 0o600), "r+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        if servers_in(self._directory, self._programs):
            file.close()
            raise EmbeddedError(
                f"{self._name} ({self._who()}) runs in {self._directory}, but this app did not start it. Stop it first."
            )
        return file

    def lives(self) -> bool:
        """Whether a process of this server runs."""
        file = self.claim()
        if file is not None:
            file.close()
        return file is None

    def run(
        self, command: Sequence[str | Path], claim: BinaryIO, ready: Callable[[], bool], account: Account | None
    ) -> None:
        """Starts the server and waits until it is ready. If it does not become ready, nothing is left running."""
        # The log is opened here and inherited, because the account may not have access to it.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        with os.fdopen(os.open(self._log, flags, 0o600), "ab") as log:
            began = log.seek(0, os.SEEK_END)
            self._reap()
            self._child = child = spawn(command, claim, account, output=log)
        try:
            wait_until(lambda: child.poll() is not None or ready(), START_SECONDS)
            if child.poll() is not None:
                raise EmbeddedError(f"{self._name} ended while it started{self._last_words(began)}")
            if not ready():
                raise EmbeddedError(f"{self._name} did not answer in {START_SECONDS:.0f} s{self._last_words(began)}")
        except BaseException:
            end(child)
            raise

    def wait_for_end(self) -> None:
        """Waits for the server's end. Raises EmbeddedError if it is still alive at the deadline."""
        if not wait_until(lambda: not self.lives(), STOP_SECONDS):
            raise EmbeddedError(f"{self._name} ({self._who()}) did not stop in {STOP_SECONDS:.0f} s; see {self._log}.")
        self._reap()

    def let_go(self) -> None:
        """Leaves the server to the other processes of the app, which keep using it."""
        if self._child is not None and self._child.poll() is None:
            self._child.returncode = 0  # Otherwise Popen warns that a child still runs, which is intended here.

    def _reap(self) -> None:
        # The lock is free, so the child is ending, even if the kernel has not reported it yet.
        if self._child is not None:
            self._child.wait()

    def _who(self) -> str:
        processes = servers_in(self._directory, self._programs)
        return f"process {processes[0].pid}" if processes else "process unknown"

    def _last_words(self, began: int) -> str:
        with self._log.open("rb") as log:
            log.seek(began)
            lines = log.read().decode(errors="replace").strip().splitlines()[-8:]
        return f". The last lines of {self._log}:\n" + "\n".join(lines) if lines else f"; {self._log} says nothing."
