"""The processes that use a directory, as its `members` file lists them: the app, and its processes that have entered.

The file only names them to others. Whether any process is in is decided by the lock on the file, because a file
survives its writers.
"""

import json
import multiprocessing
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from app.embedded.errors import EmbeddedError
from app.embedded.identity import Identity, identity_of


@dataclass(frozen=True, slots=True)
class Holders:
    """An app, identified by its first process, and its processes that are in."""

    app: Identity
    processes: tuple[Identity, ...]

    @classmethod
    def read(cls, file: Path) -> "Holders | None":
        """Reads the file. Returns None if it is empty, gone or being written."""
        try:
            stored = json.loads(file.read_text())
            return cls(Identity(**stored["app"]), tuple(Identity(**process) for process in stored["processes"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def joined_by(self, process: Identity) -> str:
        """Returns the text of the file with `process` added and dead processes removed."""
        processes = [*(other for other in self.processes if other.lives()), process]
        return json.dumps({"app": asdict(self.app), "processes": [asdict(one) for one in processes]})

    def living(self) -> int | None:
        """Returns the pid to report: the supervisor's, or that of a worker that survived it."""
        return next((one.pid for one in (self.app, *self.processes) if one.lives()), None)


def this_app() -> Identity:
    """Returns the identity of the app that this process belongs to."""
    parent = multiprocessing.parent_process()
    app = None if parent is None or parent.pid is None else identity_of(parent.pid)
    return app or this_process()


def this_process() -> Identity:
    me = identity_of(os.getpid())
    if me is None:
        raise EmbeddedError(f"The system tells nothing about process {os.getpid()}; is /proc mounted?")
    return me
