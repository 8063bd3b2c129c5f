"""Recognising processes, so that a recycled pid is never taken for the process that once had it.

A pid alone proves nothing: it is given out again, and low pids recur in every container. A pid with its start
time names one process. A server of ours is recognised by its program and its working directory, which the
kernel reports and no file can forge.

psutil is imported inside the functions: it comes with the `embedded` extra, and a deployment that has no
extra imports this package too, because `app.main` does.
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
        """Whether this very process runs now; a later one with its pid does not count."""
        return identity_of(self.pid) == self


def identity_of(pid: int) -> Identity | None:
    """Who has this pid now, or None."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        # psutil's create_time() adds the boot time as the wall clock has it, and so changes when the clock is
        # set: the same supervisor would look like another one to a worker that is started later. Ticks since
        # the boot never change.
        if sys.platform == "linux":
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
            return Identity(pid, float(stat.rpartition(")")[2].split()[19]))
        return Identity(pid, process.create_time())
    except (psutil.Error, OSError):
        return None


def servers_in(directory: Path, programs: frozenset[str]) -> "list[psutil.Process]":
    """The processes of these programs whose working directory is this one, oldest first."""
    import psutil

    found = []
    for process in psutil.process_iter(["name"]):
        if process.info["name"] not in programs:
            continue
        try:
            if process.cwd() == str(directory):
                found.append(process)
        except (psutil.Error, OSError):  # Gone meanwhile, or of another user and so not in a directory of ours.
            continue
    return found


def parent_of(process: "psutil.Process") -> int | None:
    """The pid of its parent, or None if it is gone."""
    import psutil

    try:
        return int(process.ppid())
    except psutil.Error:
        return None


def signal_process(process: "psutil.Process", number: Signals) -> None:
    """Signal this very process; psutil looks first that its pid has not been given to another one."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)
