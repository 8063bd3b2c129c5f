"""An app in its own process, which the tests can kill: it holds the embedded servers until its stdin ends.

    python -m tests.embedded.app_process DIRECTORY [--as-nobody] [--workers N]

It reports events as lines of JSON. With workers, it is a supervisor like uvicorn's, and takes commands on stdin:
`spawn` starts one more worker, and `leave PID` ends that worker in order.
"""

import argparse
import json
import multiprocessing
import os
import pwd
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from app.embedded import EmbeddedError, embedded_servers, running_endpoints
from tests.open_directory import open_directory


def hold(directory: Path, wait: Callable[[], object]) -> None:
    """Holds the servers of the directory until wait() returns."""
    steps: list[str] = []
    try:
        with embedded_servers(directory, report=steps.append) as endpoints:
            urls = {"redis_url": endpoints.redis_url, "database_url": endpoints.database_url}
            tell("in", steps=steps, **urls)
            wait()
        tell("out")
    except EmbeddedError as error:
        tell("refused", why=str(error))


def tell(event: str, **facts: Any) -> None:
    """Reports an event in one write, so that the lines of several workers do not mix."""
    os.write(1, (json.dumps({"event": event, "pid": os.getpid(), **facts}) + "\n").encode())


def work(directory: Path, orders: Connection) -> None:
    """Runs a worker, which leaves when its supervisor says so or is gone."""
    hold(directory, lambda: orders.poll(None))


def supervise(directory: Path, count: int) -> None:
    """Spawns workers as uvicorn does, and obeys stdin."""
    spawn = multiprocessing.get_context("spawn")
    workers: dict[int, tuple[BaseProcess, Connection]] = {}

    def add() -> None:
        orders, ours = spawn.Pipe(duplex=False)
        process = spawn.Process(target=work, args=(directory, orders))
        process.start()
        orders.close()
        assert process.pid is not None
        workers[process.pid] = process, ours

    for _ in range(count):
        add()
    for line in sys.stdin:
        order, *pids = line.split()
        if order == "spawn":
            add()
        for pid in pids:
            workers[int(pid)][1].close()
    for _, ours in workers.values():
        ours.close()
    for process, _ in workers.values():
        process.join()


def become_nobody() -> None:
    """Drops root for good. Python may be below /root, so the servers run once before, which imports everything."""
    with open_directory() as scratch, embedded_servers(scratch):
        running_endpoints(scratch)
    entry = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--as-nobody", action="store_true")
    parser.add_argument("--workers", type=int)
    asked = parser.parse_args()
    if asked.as_nobody:
        become_nobody()
    if asked.workers is not None:
        supervise(asked.directory, asked.workers)
    else:
        hold(asked.directory, sys.stdin.read)


if __name__ == "__main__":
    main()
