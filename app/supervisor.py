"""The supervisor of the workers of `fourways serve --workers`: uvicorn's, with an orderly start and stop.

    start    each worker is a new process, and leaves the signals of a terminal to its supervisor
    stop     SIGINT, SIGTERM or SIGHUP -> close the port -> SIGTERM to each worker -> wait for them

What can go wrong: a worker ends or hangs, and is replaced.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from socket import socket

from uvicorn import Config
from uvicorn.supervisors import Multiprocess

SILENCE = 60
"""How long, in seconds, a worker may leave its supervisor unanswered before it is replaced. Many workers that start
together on a small machine are slow, not dead."""


class Supervisor(Multiprocess):
    """Uvicorn's supervisor, with an orderly start and stop."""

    def __init__(self, config: Config, sockets: list[socket]) -> None:
        hears_hangup = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
        super().__init__(config, sockets)
        if not hears_hangup:  # As under `nohup`.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def init_processes(self) -> None:
        with _signals_of_a_terminal_for_us_alone():
            super().init_processes()
        self._hear_their_end()

    def keep_subprocess_alive(self) -> None:
        with _signals_of_a_terminal_for_us_alone():
            super().keep_subprocess_alive()
        self._hear_their_end()

    def handle_hup(self) -> None:
        # For uvicorn it means a restart, but a terminal sends it when it is closed.
        self.handle_term()

    def _hear_their_end(self) -> None:
        # Uvicorn also keeps the worker's end of the health-check pipe open. A worker that ends instead of answering
        # would then be waited for during all of `SILENCE`, and signals would wait, too.
        for process in self.processes:
            process.child_conn.close()

    def terminate_all(self) -> None:
        # The port closes with the last copy of its socket. If ours stayed open, the kernel would keep accepting
        # connections while the workers end, and nothing would answer them.
        for listener in self.sockets:
            listener.close()
        super().terminate_all()


@contextmanager
def _signals_of_a_terminal_for_us_alone() -> Iterator[None]:
    """Blocks SIGINT and SIGHUP for workers that start in this block; their supervisor ends them with SIGTERM. A
    terminal sends both to every process. A worker that is still importing would print a traceback at Ctrl-C, and one
    that serves would end at SIGHUP without an answer. For this process they are pending until the block ends."""
    resource_tracker.ensure_running()  # multiprocessing's own helper process, whose start would unblock the signals.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGHUP})
