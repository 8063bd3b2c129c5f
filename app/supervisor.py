"""The supervisor of the workers of `fourways serve --workers`: uvicorn's, with an orderly start and stop.

    start    each worker is a new process, and leaves the signals of a terminal to its supervisor
    keep     a worker that ends or hangs is replaced, and the log says so
    stop     SIGINT, SIGTERM or SIGHUP -> close the port -> SIGTERM to each worker -> wait for them, but not for ever

What can go wrong: a worker cannot start. If it is one of the first, the service stops: whoever has just started it sees
why. Later, the others serve, and what is missing may come back (a file that is being replaced): it is tried again. One
worker after another ends soon after its start: the first one is replaced at once, and each further one after a longer
pause, which leaves the machine to others.
"""

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from socket import socket

from uvicorn import Config
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

logger = logging.getLogger(__name__)

SILENCE = 60
"""How long, in seconds, a worker may leave its supervisor unanswered before it is replaced. Many workers that start
together on a small machine are slow, not dead."""
SOON = 10
"""A worker that lives for fewer seconds than this has ended soon after its start."""
ENDING = 18
"""How long, in seconds, workers may take to end: requests in flight 10, the flusher 3, and the stores 4. A container is
killed after 30 s on Kubernetes, and after 20 s with our compose file. Those that hang must be gone before that."""
LONGEST = 30
"""The longest pause, in seconds, before a worker is replaced."""


class Worker(Process):
    """A worker process. If it ends soon after its start, its replacement waits for `pause` seconds. `is_first` says
    that it replaces no other."""

    def __init__(self, config: Config, sockets: list[socket], pause: int = 0, *, is_first: bool = False) -> None:
        super().__init__(config, sockets)
        self.pause, self.is_first = pause, is_first
        self.began = time.monotonic()
        self.asked: float | None = None
        """When it was asked whether it lives, until it answers."""
        self.ended: float | None = None
        self.how = ""
        """How it ended, for the log."""

    def is_lost(self) -> bool:
        """Whether it has ended, or did not answer for `SILENCE`. Waits for nothing: signals would wait, too."""
        if not self.process.is_alive():
            return True
        try:
            if self.asked is None:
                self.parent_conn.send(b"ping")
                self.asked = time.monotonic()
            elif self.parent_conn.poll():
                self.parent_conn.recv()
                self.asked = None
        except (OSError, EOFError):
            return True
        return self.asked is not None and time.monotonic() - self.asked > SILENCE

    def end(self) -> None:
        """Ends it, if it hangs, and notes how it ended."""
        hangs = self.process.is_alive()
        self.kill()
        self.join()
        self.ended = time.monotonic()
        self.how = f"did not answer for {SILENCE} s, and was killed" if hangs else _how(self.exitcode or 0)
        if self.ended - self.began > SOON:
            self.pause = 0

    def is_due(self) -> bool:
        """Whether it has ended, and its replacement need not wait any more."""
        return self.ended is not None and time.monotonic() >= self.ended + self.pause

    def next_pause(self) -> int:
        """Returns the pause of its replacement."""
        return min(2 * self.pause or 1, LONGEST)


class Supervisor(Multiprocess):
    """The supervisor."""

    processes: list[Worker]  # type: ignore[assignment]  # A list of uvicorn's class could not hold ours.

    def __init__(self, config: Config, sockets: list[socket]) -> None:
        hears_hangup = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
        super().__init__(config, sockets)
        self.failed = False
        """Whether one of the first workers could not start."""
        self._leaving: list[Worker] = []
        """Those that SIGTTOU has told to end."""
        if not hears_hangup:  # As under `nohup`.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def init_processes(self) -> None:
        self.processes = [self._started(pause=0, is_first=True) for _ in range(self.processes_num)]

    def keep_subprocess_alive(self) -> None:
        self._leaving = [worker for worker in self._leaving if worker.process.is_alive()]
        for place, worker in enumerate(self.processes):
            if self.should_exit.is_set():
                return
            if worker.ended is None and worker.is_lost():
                self._note_end(worker)
            if worker.is_due() and not self.should_exit.is_set():
                self.processes[place] = new = self._started(worker.next_pause())
                logger.warning("Worker %s %s: worker %s replaces it.", worker.pid, worker.how, new.pid)

    def handle_hup(self) -> None:
        # For uvicorn it means a restart, but a terminal sends it when it is closed.
        self.handle_term()

    def handle_ttin(self) -> None:
        self.processes_num += 1
        self.processes.append(self._started(pause=0))

    def handle_ttou(self) -> None:
        # Uvicorn's own waits for the worker to end, and signals wait, too.
        if self.processes_num > 1:
            self.processes_num -= 1
            self._leaving.append(worker := self.processes.pop())
            worker.terminate()

    def terminate_all(self) -> None:
        # The port closes with the last copy of its socket. If ours stayed open, the kernel would keep accepting
        # connections while the workers end, and nothing would answer them.
        for listener in self.sockets:
            listener.close()
        super().terminate_all()

    def join_all(self) -> None:
        # Who does not end by then hangs, and would hold up the stop until everything is killed.
        latest = time.monotonic() + ENDING
        for worker in (*self._leaving, *self.processes):
            worker.process.join(max(0.0, latest - time.monotonic()))
            if worker.process.is_alive():
                logger.warning("Worker %s did not end in %d s, and was killed.", worker.pid, ENDING)
                worker.kill()
                worker.join()

    def _started(self, pause: int, *, is_first: bool = False) -> Worker:
        worker = Worker(self.config, self.sockets, pause, is_first=is_first)
        with _signals_of_a_terminal_for_us_alone():
            worker.start()
        # Uvicorn also keeps the worker's end of the health-check pipe open. A worker that ends instead of answering
        # would then be waited for during all of `SILENCE`, and signals would wait, too.
        worker.child_conn.close()
        return worker

    def _note_end(self, worker: Worker) -> None:
        worker.end()
        if worker.exitcode == STARTUP_FAILURE and worker.is_first:
            logger.error("Worker %s could not start, and has said why: the service stops.", worker.pid)
            self.failed = True
            self.should_exit.set()
        elif worker.pause:
            logger.warning(
                "Worker %s %s, soon after its start. It is replaced in %d s.", worker.pid, worker.how, worker.pause
            )


def _how(code: int) -> str:
    """Returns how a process ended: with an exit code, or by a signal."""
    if code == STARTUP_FAILURE:
        return "could not start, and has said why"
    if code >= 0:
        return f"ended with exit code {code}"
    names = {number.value: number.name for number in signal.Signals}
    return f"was ended by {names.get(-code, f'signal {-code}')}"


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
