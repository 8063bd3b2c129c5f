"""The files in which the workers of a service count, so that each can report the sum: prometheus_client's multiprocess
mode. One process alone counts in its memory.

    name     an environment variable enables the mode when the library is imported, and names the directory. So that
             nobody has to set it, `name_directory` does, in processes that a supervisor spawned
    make     the library maps sparse files: on a full disk, the first write to one would end the process with SIGBUS.
             `make_files` makes them before the library does, with all their blocks
    end      `end_gauges_of_the_dead` removes the gauges of workers that have ended; their counts stay in the sum
    sweep    a directory stays until its service has ended, and the next service removes it. Each process of a service
             holds a lock, which the kernel releases however the process ends. A pid says nothing to another container
             that shares the directory for temporary files: it has pids of its own, and each has a process 1

What can go wrong: the directory cannot be written, or the disk is full. Then `make_files` raises OSError, and the
worker can only count in its memory. Uvicorn's own supervisor holds no lock: if all of its workers end at once, just
when another service starts, the next ones begin at 0.
"""

import fcntl
import hashlib
import multiprocessing
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
PREFIX = "fourways-metrics-"
KINDS = ("counter", "histogram", "gauge_livemax")
"""The beginnings of the names of a process' files, as prometheus_client names them."""
LOCK = "lock"
SIZE = 2**16
"""The size of a file. The library makes it larger if it is full, but the metrics of the service fit well."""


def name_directory() -> None:
    """Sets the variable in a worker, unless it is set. Creates nothing."""
    supervisor = multiprocessing.parent_process()
    if supervisor is not None and VARIABLE not in os.environ:
        os.environ[VARIABLE] = str(_directory_of(supervisor.pid))


@contextmanager
def kept_directory() -> Iterator[None]:
    """Keeps the directory of the workers of this supervisor while the block lasts, even if all of them have ended."""
    with ExitStack() as stack:
        if VARIABLE not in os.environ:
            with suppress(OSError):  # Each worker says what is wrong with it.
                stack.enter_context(_locked(_directory_of(os.getpid())))
        yield


def make_files(directory: Path) -> BinaryIO:
    """Makes the files of this process. Returns an open file: the directory stays as long as anyone has such a one.
    Raises OSError if there is no place for the files."""
    _sweep()
    with ExitStack() as stack:
        lock = stack.enter_context(_locked(directory))
        for kind in KINDS:
            path = directory / f"{kind}_{os.getpid()}.db"
            if not path.exists():
                _make(path)
        stack.pop_all()
    return lock


def end_gauges_of_the_dead(directory: Path) -> None:
    """Removes the gauges of processes that have ended, as prometheus_client's `mark_process_dead` does. Here any worker
    does it, because uvicorn's own supervisor does not."""
    for path in directory.glob("gauge_live*_*.db"):
        with suppress(ValueError, OverflowError):  # Somebody else's file.
            if not _runs(int(path.stem.rpartition("_")[2])):
                path.unlink(missing_ok=True)


def _directory_of(supervisor: int | None) -> Path:
    # Workers inherit the key of their supervisor. It is random, so a recycled pid does not revive old counts.
    key = hashlib.sha256(bytes(multiprocessing.current_process().authkey)).hexdigest()[:16]
    return _temporary() / f"{PREFIX}{supervisor}-{key}"


def _make(path: Path) -> None:
    # Another worker may read it at any time, so it is renamed when it is whole.
    new = path.with_suffix(".new")
    try:
        with new.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, SIZE)
        new.replace(path)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise


def _locked(directory: Path) -> BinaryIO:
    """Makes the directory, and shares its lock. Another service may just be removing it:

    A makes the directory                             B finds it, without a lock, and takes the lock alone
    A opens the lock, and waits                       B removes the directory, and releases the lock
    A shares the lock of a directory that is gone: it begins again
    """
    while True:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            lock = _lock(directory)
        except FileNotFoundError:
            continue
        fcntl.flock(lock, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), (directory / LOCK).stat()):
                return lock
        lock.close()


def _sweep() -> None:
    """Removes the directories of services that have ended."""
    for directory in _temporary().glob(f"{PREFIX}*"):
        with suppress(ValueError, OverflowError, OSError):  # Any user can make one, with any name.
            supervisor, found = int(directory.name.removeprefix(PREFIX).split("-")[0]), directory.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            if _runs(supervisor) and not (directory / LOCK).exists():  # Of an earlier version, which has no locks.
                continue
            with _lock(directory) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)


def _lock(directory: Path) -> BinaryIO:
    return os.fdopen(os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b", buffering=0)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # As another user.
    return True


def _temporary() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:  # No directory can be written, and `make_files` will say so.
        return Path("/tmp")
