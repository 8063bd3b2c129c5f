"""Ctrl-C, SIGTERM, and the end of the terminal. Before anything is started they end the command at once; later they set
an event.

What was started is stopped on the way out, and what was found so far is reported, if somebody is there to read it.
"""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

import typer

INTERRUPTED = 130
"""The exit code that a shell expects of a command ended by Ctrl-C."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Handles these signals in its block; SIGHUP not under `nohup`, which ignores it."""

    def __init__(self) -> None:
        self._deferred = self._asked = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def __enter__(self) -> Self:
        nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        heard = [number for number in SIGNALS if number != signal.SIGHUP or not nohup]
        self._before = {number: signal.signal(number, self._hear) for number in heard}
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED)

    def defer(self) -> None:
        """From now on a signal waits for `telling`. Raises KeyboardInterrupt for a signal that has already come."""
        self._deferred = True
        if self._asked:
            # Python prints and drops what a signal handler raises during garbage collection or in a weak reference's
            # callback.
            raise KeyboardInterrupt

    @contextmanager
    def telling(self, stop: asyncio.Event) -> Iterator[asyncio.Event]:
        """Sets `stop` when a signal comes, or has come."""
        self._loop, self._stop = asyncio.get_running_loop(), stop
        if self._asked:
            stop.set()
        try:
            yield stop
        finally:
            self._loop = self._stop = None

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        elif not self._deferred:
            raise KeyboardInterrupt
