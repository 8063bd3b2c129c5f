"""An app of several processes that share a directory. An existing file stands for running servers.

    python -m tests.embedded.locking_process DIRECTORY WORKERS ROUNDS

Every worker enters and leaves ROUNDS times. A worker fails if the servers are started twice, stopped twice, or not
running while it is in: `touch` and `unlink` detect this.
"""

import multiprocessing
import sys
from pathlib import Path

from app.embedded.directory_lock import DirectoryLock


def work(directory: Path, rounds: int) -> None:
    running = directory / "running"

    def start(first: bool) -> None:
        if first:
            running.touch(exist_ok=False)
        assert running.exists()

    for _ in range(rounds):
        with DirectoryLock(directory).shared(start=start, stop=running.unlink):
            assert running.exists()


def main() -> None:
    directory, count, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=work, args=(directory, rounds)) for _ in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    sys.exit(any(worker.exitcode for worker in workers) or (directory / "running").exists())


if __name__ == "__main__":
    main()
