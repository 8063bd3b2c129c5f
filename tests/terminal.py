"""A command as a person runs it in a terminal: what it prints is on the screen, and Ctrl-C reaches its whole group."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.eventually import PATIENCE, eventually
from tests.fork_server import PROGRAMS, Started, start
from tests.process_tree import ProcessTree

OURS = ("FOURWAYS_", "REDIS_URL", "DATABASE_URL", "PORT", "PROMETHEUS_")


class Terminal:
    """One running command."""

    def __init__(self, process: Started, screen: Path) -> None:
        self._process, self._screen = process, screen

    @property
    def pid(self) -> int:
        """Of the command itself."""
        return self._process.pid

    @property
    def screen(self) -> str:
        """Everything that was printed so far, by all processes of the command."""
        return self._screen.read_text()

    async def shows(self, text: str) -> None:
        """Returns when `text` is on the screen. Fails when the command ends without it."""

        async def is_shown() -> bool:
            ended = self._process.poll() is not None
            assert text in self.screen or not ended, f"It ended with {self._process.returncode}:\n{self.screen}"
            return text in self.screen

        await eventually(is_shown)

    def tree(self) -> ProcessTree:
        """The command and all that it has started."""
        return ProcessTree.of(self.pid)

    def ctrl_c(self) -> None:
        """SIGINT to every process of the group, as a terminal sends it."""
        os.killpg(self.pid, signal.SIGINT)

    def send(self, number: signal.Signals) -> None:
        """A signal to the command itself, as `kill` sends it."""
        self._process.send_signal(number)

    async def code(self) -> int:
        """Returns when the command has ended, with its exit code."""
        try:
            return await asyncio.to_thread(self._process.wait, PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"It has not ended. On its screen:\n{self.screen}") from None

    async def clear(self) -> None:
        """Ends the command, if need be the hard way."""
        tree = self.tree() if self._process.poll() is None else ProcessTree(())
        self.send(signal.SIGTERM)
        try:
            await self.code()
        except AssertionError:
            for process in tree.alive():
                process.kill()
            raise


@asynccontextmanager
async def terminal(screen: Path, *command: str, **environment: str) -> AsyncIterator[Terminal]:
    """Runs a program of our environment with these variables; it is ended with the block. `screen` is a file."""
    inherited: dict[str, str] = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    with screen.open("wb") as output:
        process = start(
            [str(PROGRAMS / command[0]), *command[1:]],
            {**inherited, "COLUMNS": "200", **environment},
            screen=output,
            session=True,
        )
    running = Terminal(process, screen)
    try:
        yield running
    finally:
        await running.clear()
