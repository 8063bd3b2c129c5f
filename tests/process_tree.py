"""A process and all its descendants. They are remembered individually, because their parents may die first."""

from collections import Counter
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]

from tests.eventually import eventually


@dataclass(frozen=True, slots=True)
class ProcessTree:
    """The processes that were alive at one moment."""

    processes: tuple[psutil.Process, ...]

    @classmethod
    def of(cls, pid: int) -> "ProcessTree":
        """Returns the process with this pid and all its descendants."""
        root = psutil.Process(pid)
        return cls((root, *root.children(recursive=True)))

    def workers(self) -> list[psutil.Process]:
        """Returns the processes that serve: uvicorn's workers, or else uvicorn itself."""
        return [process for process in self.alive() if _serves(process)] or [self.processes[0]]

    def servers(self) -> Counter[str]:
        """Counts the embedded servers by name. Processes that Postgres forks do not count."""
        names = [process.name() for process in self.processes if process.name() != process.parent().name()]
        return Counter(name for name in names if name in ("redis-server", "postgres"))

    def alive(self) -> list[psutil.Process]:
        """Returns the processes that still run. A zombie does not count, nor a new process with an old one's pid."""
        return [process for process in self.processes if _runs(process)]

    def names(self) -> set[str]:
        """Returns the names of the processes that still run."""
        return {name for name in map(_name, self.alive()) if name}

    async def gone(self) -> float:
        """Waits until none of them is left, and returns how many seconds that took."""

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
