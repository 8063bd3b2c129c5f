"""Identifies processes, so that a recycled pid is never taken for the process that once had it.

A pid alone proves nothing: pids are reused, and low pids recur in every container. A pid with its start time identifies
one process. An embedded server is identified by its program and its working directory, which the kernel reports and no
file can forge.

psutil is imported inside the functions: it comes with the `embedded` extra, and a deployment without the extra imports
this package too, because `app.main` does.
"""

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil  # type: ignore[import-untyped]


@dataclass(frozen=True, slots=True)
class Identity:
    """One process of this machine: its pid and the moment it started."""

    pid: int
    started: float

    def lives(self) -> bool:
        """Returns whether this process runs now. A later one with its pid does not count."""
        return identity_of(self.pid) == self


def identity_of(pid: int) -> Identity | None:
    """Returns the identity of the process that has this pid now, or None."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        # psutil's create_time() adds the boot time by the wall clock, and so changes when that clock is set: a worker
        # that starts later would take its supervisor for another one. Ticks since boot never change.
        if sys.platform == "linux":
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
            return Identity(pid, float(stat.rpartition(")")[2].split()[19]))
        return Identity(pid, process.create_time())
    except (psutil.Error, OSError):
        return None


def servers_in(directory: Path, programs: frozenset[str]) -> "list[psutil.Process]":
    """Returns the processes of these programs that have this working directory, oldest first."""
    import psutil

    found = []
    for process in psutil.process_iter(["name"]):
        if process.info["name"] not in programs:
            continue
        try:
            if process.cwd() == str(directory):
                found.append(process)
        except (psutil.Error, OSError):  # It is gone, or another user's and so not in this directory.
            continue
    return found


def parent_of(process: "psutil.Process") -> int | None:
    """Returns the pid of the process's parent, or None if the process is gone."""
    import psutil

    try:
        return int(process.ppid())
    except psutil.Error:
        return None


def signal_process(process: "psutil.Process", number: Signals) -> None:
    """Signals this process only: psutil first checks that its pid was not reassigned."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)
