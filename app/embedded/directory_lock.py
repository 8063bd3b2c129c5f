"""Reserves a directory for the processes of one app.

    enter   gate -> nobody in: record this app; this app in: join; another app in: refuse -> start -> gate opens
    leave   gate -> nobody else in: stop -> gate opens

The processes of one app are those that one supervisor spawned (`uvicorn --workers 3`, `--reload`), so an app is
identified by its supervisor: the parent that multiprocessing knows, or else the process itself. Two files are locked:
`members`, shared, by every process that is in, and `gate` while a process enters or leaves. The kernel releases both
when a process dies.

What can go wrong: multiprocessing does not know gunicorn and other supervisors that fork by themselves. Each of their
workers counts as its own app.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.embedded.errors import EmbeddedError
from app.embedded.holders import Holders, this_app, this_process
from app.embedded.waiting import PAUSE_SECONDS

GATE_SECONDS = 240.0  # Longer than both servers may take to start or to stop.


class DirectoryLock:
    """One process's membership in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._app = this_app()

    @contextmanager
    def shared(self, *, start: Callable[[bool], None], stop: Callable[[], None]) -> Iterator[None]:
        """Enters the directory while the block lasts; start(first) returns before it begins. The last process to leave
        calls stop, even if its own start failed."""
        with self._gate():
            members, first = self._enter()
            try:
                start(first)
            except BaseException:
                self._leave(members, stop)
                raise
        try:
            yield
        finally:
            with self._gate():
                self._leave(members, stop)

    def _enter(self) -> tuple[int, bool]:
        members = _open(self._directory / "members")
        first = _lock(members, fcntl.LOCK_EX)
        holders = Holders(self._app, ()) if first else Holders.read(self._directory / "members")
        if holders is None or holders.app != self._app:
            os.close(members)
            raise self._taken(holders)
        os.ftruncate(members, 0)
        os.pwrite(members, holders.joined_by(this_process()).encode(), 0)
        _lock(members, fcntl.LOCK_SH)
        return members, first

    def _leave(self, members: int, stop: Callable[[], None]) -> None:
        # Only the gate makes "last" reliable. Without it: A and B leave at once -> A sees B's shared lock, B sees A's
        # -> neither stops the servers. Or: A is the last and stops them -> B enters meanwhile and finds them still
        # answering -> B has no servers.
        try:
            if _lock(members, fcntl.LOCK_EX):
                # Another app that waits at the gate reads this file. When it is empty, that app waits until this one
                # is gone, and is not refused.
                os.ftruncate(members, 0)
                stop()
        finally:
            os.close(members)

    @contextmanager
    def _gate(self) -> Iterator[None]:
        gate = _open(self._directory / "gate")
        try:
            deadline = time.monotonic() + GATE_SECONDS
            while not _lock(gate, fcntl.LOCK_EX):
                holders = Holders.read(self._directory / "members")
                # Another app that starts its servers holds the gate for seconds. It has recorded its name by then, so
                # there is nothing to wait for. A name whose processes are dead was left by a crash: the holder of the
                # gate will replace it.
                if holders is not None and holders.app != self._app and holders.living() is not None:
                    raise self._taken(holders)
                if time.monotonic() >= deadline:
                    raise EmbeddedError(
                        f"{self._directory} has been busy starting or stopping for {GATE_SECONDS:.0f} s."
                    )
                time.sleep(PAUSE_SECONDS)
            yield
        finally:
            os.close(gate)

    def _taken(self, holders: Holders | None) -> EmbeddedError:
        pid = None if holders is None else holders.living()
        by = "another app" if pid is None else f"process {pid}"
        return EmbeddedError(f"{self._directory} is already in use by {by}; stop it, or run in another directory.")


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EmbeddedError(
            f"{path} cannot be written: {error.strerror}. Set FOURWAYS_DIRECTORY to another one."
        ) from error


def _lock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
