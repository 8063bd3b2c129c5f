"""An event loop that reports when nothing moves any more, and whose time passes only on command.

    idle        no callback is ready, and no task waits for a socket: every task waits for a timer, or for a decision
    advance     the time moves on, and what is due wakes

A thousand schedules are thus explored without one sleep, and two runs take the same turns. (The event loops of
deterministic simulation: Zhou et al., "FoundationDB", SIGMOD 2021.)

What can go wrong: a wait for a socket that is not declared as `busy` is mistaken for idleness.
"""

import asyncio
import selectors
import time
from collections.abc import Callable


class IdleSelector(selectors.DefaultSelector):
    """The loop asks it for the next event when no callback is ready. It then reports that it is idle, unless it is
    busy."""

    def __init__(self) -> None:
        super().__init__()
        self.busy: Callable[[], bool] = lambda: False
        self.report: Callable[[float | None], None] | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Selects as any selector does. The loop calls it with a timeout of 0 while callbacks are ready."""
        if self.report is not None and (timeout is None or timeout > 0) and not self.busy():
            report, self.report = self.report, None
            report(timeout)
            timeout = 0
        return super().select(timeout)


class IdleLoop(asyncio.SelectorEventLoop):
    """The loop."""

    def __init__(self) -> None:
        self._idle_selector = IdleSelector()
        self._ahead = 0.0
        self._stands_at: float | None = None
        super().__init__(self._idle_selector)

    def time(self) -> float:
        """Returns the time in seconds, which is constant while the time is stopped."""
        return time.monotonic() + self._ahead if self._stands_at is None else self._stands_at

    def stop_time(self) -> None:
        """Stops the time: from here on it passes only by `advance`."""
        self._stands_at = self.time()

    def start_time(self) -> None:
        """Lets the time pass by itself again."""
        self._ahead, self._stands_at = self.time() - time.monotonic(), None

    def advance(self, seconds: float) -> None:
        """Advances the time."""
        self._stands_at = self.time() + seconds

    async def idle(self, busy: Callable[[], bool]) -> float | None:
        """Returns when nothing moves and `busy` says that no task waits for a socket. The result is the seconds until
        the next timer is due, None when there is none."""
        waiting: asyncio.Future[float | None] = self.create_future()
        self._idle_selector.busy, self._idle_selector.report = busy, waiting.set_result
        return await waiting
