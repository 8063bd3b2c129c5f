"""Starts a Python program as a fork of a process that has imported what most programs need.

A new Python imports for two seconds, and the tests start hundreds of them. A forked program imports only the rest, and
so do the workers that it spawns. Apart from that it is a process like any other: it has its own arguments, environment,
output, session and exit code, and it can be killed.

Most of `test_serve.py` does not use it: its subject is how a program starts on its own.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import process, resource_tracker, util
from pathlib import Path
from typing import IO, ClassVar, NamedTuple, NoReturn

REPOSITORY, PROGRAMS = Path(__file__).parent.parent, Path(sys.executable).parent
NOT_OURS = [
    "alembic.command",
    "asyncpg",
    "click",
    "fastapi.staticfiles",
    "httptools",
    "multiprocessing.spawn",
    "pydantic.v1",
    "pydantic_settings",
    "redis.asyncio",
    "rich.console",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.ext.asyncio",
    "uvicorn.main",
    "uvloop",
]
OURS = [
    "app.coherence.relay",
    "app.coherence.settling",
    "app.counting_files",
    "app.faults",
    "app.inventory.load",
    "app.page_views.parking",
    "app.page_views.target",
    "app.products.load",
    "app.products.service",
    "app.routers.edge",
    "app.routers.envelope",
    "app.routers.hosts",
    "app.routers.parameters",
    "app.routers.sent_views",
    "app.routers.strategies",
    "app.speed.settled_garbage",
    "app.store_health",
    "app.unknown_variables",
    "app.users.service",
]
"""All but what needs prometheus_client, which decides when it is imported how to count: see `app.metrics`."""
KNOWN: set[str] = set()
"""The modules that this server has imported for all programs."""
SCRIPTS = ("fourways", "uvicorn")
RESET = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP)


class Forked:
    """A program that the fork server has started, with what the tests need of `subprocess.Popen`."""

    def __init__(self, status: int) -> None:
        self._status, self._lock = status, threading.Lock()
        self.pid = int(_line(status))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, if it has ended; minus the signal, if one ended it."""
        with self._lock:
            if self.returncode is None and select.select([self._status], [], [], 0)[0]:
                self.returncode = int(_line(self._status))
                os.close(self._status)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Returns when it has ended. Raises TimeoutExpired after `timeout` seconds."""
        if self.poll() is None and not select.select([self._status], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        """A signal to it, if it still runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """`kill -9`."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The tests' end of the server."""

    current: ClassVar["ForkServer | None"] = None
    """The one that runs, if one does."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[None]:
        """Runs one until the block ends. What it has started ends by itself, or is ended by who started it."""
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, its:
            command = [sys.executable, "-m", "tests.fork_server", str(its.fileno())]
            server = subprocess.Popen(command, cwd=REPOSITORY, pass_fds=[its.fileno()], start_new_session=True)
            its.close()
            cls.current = cls(ours)
            try:
                yield
            finally:
                cls.current = None
                ours.close()
                server.wait()

    def start(
        self, program: "Program", environment: Mapping[str, str], streams: Sequence[int], session: bool
    ) -> Forked:
        """Starts it, and returns when it has a pid."""
        order = json.dumps([program, dict(environment), session]).encode()
        status, its = os.pipe()
        try:
            socket.send_fds(self._orders, [order], [*streams, its])
        finally:
            os.close(its)
        return Forked(status)


class Program(NamedTuple):
    """What Python runs: a module, or a script where it is a path."""

    name: str
    arguments: list[str]

    @classmethod
    def of(cls, command: Sequence[str]) -> "Program | None":
        """The program of a command, if it can be forked."""
        if command[:2] == [sys.executable, "-m"]:
            return cls(command[2], list(command[3:]))
        path = Path(command[0])
        return cls(str(path), list(command[1:])) if path.parent == PROGRAMS and path.name in SCRIPTS else None

    def run(self) -> None:
        """Runs it as `__main__`, to its end."""
        sys.argv = [self.name, *self.arguments]
        if Path(self.name).is_absolute():
            runpy.run_path(self.name, run_name="__main__")
        else:
            runpy.run_module(self.name, run_name="__main__", alter_sys=True)


Started = subprocess.Popen[bytes] | Forked


def start(
    command: Sequence[str], environment: Mapping[str, str], *, screen: IO[bytes] | None, session: bool
) -> Started:
    """Starts a command in the root of the repository, with nothing on its standard input: as a fork where that is
    possible. Everything it prints goes to `screen`; without one, complaints go to our stderr, and the rest nowhere.
    """
    program = Program.of(command)
    with Path(os.devnull).open("r+b") as nothing:
        output = nothing if screen is None else screen
        if ForkServer.current is None or program is None:
            return subprocess.Popen(
                command, stdin=nothing, stdout=output, stderr=screen and subprocess.STDOUT,
                start_new_session=session, cwd=REPOSITORY, env=environment,
            )  # fmt: skip
        errors = 2 if screen is None else screen.fileno()
        return ForkServer.current.start(
            program, environment, [nothing.fileno(), output.fileno(), errors], session=session
        )


def _line(descriptor: int) -> str:
    """What comes until the end of the line, and no byte more."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        assert byte, "The fork server is gone."
        line += byte
    return line.decode()


def _serve(orders: socket.socket) -> Program | None:
    """Starts what it is ordered to, until nobody orders any more. In a process that it has started, returns the
    program."""
    statuses: dict[int, int] = {}
    heard, hearing = os.pipe()
    os.set_blocking(hearing, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(hearing, warn_on_full_buffer=False)
    while True:
        readable, _, _ = select.select([orders.fileno(), heard], [], [])
        if heard in readable:
            os.read(heard, 1_000)
            _report(statuses)
        if orders.fileno() not in readable:
            continue
        order, descriptors, _, _ = socket.recv_fds(orders, 1_000_000, 4)
        if not order:
            return None
        program, environment, session = json.loads(order)
        if pid := os.fork():
            for descriptor in descriptors[:3]:
                os.close(descriptor)
            statuses[pid] = descriptors[3]
            os.write(descriptors[3], f"{pid}\n".encode())
            continue
        signal.set_wakeup_fd(-1)
        _reset_signals()
        if session:
            os.setsid()
        for number, descriptor in enumerate(descriptors[:3]):
            os.dup2(descriptor, number)
        _close_all_but([0, 1, 2])
        os.environ.clear()
        os.environ.update(environment)
        process.current_process().authkey = os.urandom(32)
        return Program(*program)


def _report(statuses: dict[int, int]) -> None:
    """Reports each process that has ended."""
    for pid in list(statuses):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with suppress(BrokenPipeError):  # Nobody asks any more.
                os.write(statuses[pid], f"{os.waitstatus_to_exitcode(status)}\n".encode())
            os.close(statuses.pop(pid))


def _fork(path: bytes, command: Sequence[str], descriptors: Sequence[int]) -> int:
    """Starts a process for multiprocessing, in place of its `spawnv_passfds`: a fork that forgets our modules."""
    pid = os.fork()
    if not pid:
        _reset_signals()
        _close_all_but([0, 1, 2, *descriptors])
        _forget()
        code = command.index("-c") + 1
        # What tells a worker from its supervisor.
        Path("/proc/self/comm").write_text("spawn_main" if "spawn_main" in command[code] else "tracker")
        sys.argv = ["-c", *command[code + 1 :]]
        _run(command[code])
    return pid


def _forget() -> None:
    """Forgets what this server did not know: modules, and what was left to do at the end."""
    for name in sys.modules.keys() - KNOWN:
        if name.split(".")[0] in ("app", "migrations", "prometheus_client"):
            del sys.modules[name]
            package, _, module = name.rpartition(".")
            if package in sys.modules:  # `from package import module` would find it there.
                delattr(sys.modules[package], module)
    atexit._clear()
    util._finalizer_registry.clear()  # type: ignore[attr-defined]
    resource_tracker._resource_tracker._pid = None  # type: ignore[attr-defined]


def _run(code: str) -> NoReturn:
    """Runs it, and ends this process as Python ends."""
    end: object = 0
    try:
        exec(code, {"__name__": "__main__"})
    except SystemExit as error:
        end = error.code
    except BaseException:  # noqa: BLE001  # It may not go on as its parent.
        traceback.print_exc()
        end = 1
    atexit._run_exitfuncs()
    os._exit(end if isinstance(end, int) else 1)


def _reset_signals() -> None:
    """As a program finds them that was just begun; what is ignored stays so."""
    for number in RESET:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _close_all_but(descriptors: Sequence[int]) -> None:
    kept = sorted(set(descriptors))
    for before, after in zip(kept, [*kept[1:], 1 << 16], strict=True):
        os.closerange(before + 1, after)


def main() -> None:
    """Serves; what is started here goes on as the program that it is."""
    for name in (*NOT_OURS, *OURS):
        importlib.import_module(name)
    assert "prometheus_client" not in sys.modules, "Each program must import it by itself."
    KNOWN.update(sys.modules)
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as orders:
        orders.set_inheritable(False)
        program = _serve(orders)
        if program is None:
            return
        orders.detach()  # It is closed already.
    util.spawnv_passfds = _fork  # type: ignore[assignment]  # Multiprocessing hands it plain strings.
    program.run()


if __name__ == "__main__":
    main()
