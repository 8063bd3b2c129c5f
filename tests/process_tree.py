"""A process and all that it started, remembered by who they are: their parents may die first."""

from collections import Counter
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]

from tests.eventually import eventually


@dataclass(frozen=True, slots=True)
class ProcessTree:
    """The processes that lived at one moment."""

    processes: tuple[psutil.Process, ...]

    @classmethod
    def of(cls, pid: int) -> "ProcessTree":
        """The process with this pid, its children, theirs, and so on."""
        root = psutil.Process(pid)
        return cls((root, *root.children(recursive=True)))

    def workers(self) -> list[psutil.Process]:
        """The processes that serve: those that uvicorn supervises, or else uvicorn itself."""
        return [process for process in self.alive() if _serves(process)] or [self.processes[0]]

    def servers(self) -> Counter[str]:
        """How many there are of each embedded server; the processes that Postgres forks do not count."""
        names = [process.name() for process in self.processes if process.name() != process.parent().name()]
        return Counter(name for name in names if name in ("redis-server", "postgres"))

    def alive(self) -> list[psutil.Process]:
        """Those that still run. A zombie does not, and neither does another process that got the pid of one."""
        return [process for process in self.processes if _runs(process)]

    def names(self) -> set[str]:
        """What those that still run are called."""
        return {name for name in map(_name, self.alive()) if name}

    async def gone(self) -> float:
        """Returns when none of them is left, with the seconds that it took."""

        async def none_is_left() -> bool:
            return not self.alive()

        return await eventually(none_is_left)


def _serves(process: psutil.Process) -> bool:
    """Whether it is a worker, which multiprocessing has spawned, or the fork server has forked in its place."""
    return "spawn_main" in (_name(process) + _command(process))


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
