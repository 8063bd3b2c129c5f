"""Who is in a directory, as its `members` file says: the app, and those of its processes that have entered.

The file only names them to others. Whether anybody is in is decided by the lock on it, for a file survives
its writers.
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
    """An app, named by its first process, and the processes of it that are in."""

    app: Identity
    processes: tuple[Identity, ...]

    @classmethod
    def read(cls, file: Path) -> "Holders | None":
        """What the file says; None if it is empty, gone or being written."""
        try:
            stored = json.loads(file.read_text())
            return cls(Identity(**stored["app"]), tuple(Identity(**process) for process in stored["processes"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def joined_by(self, process: Identity) -> str:
        """The text of the file with one more process in it, and without those that died."""
        processes = [*(other for other in self.processes if other.lives()), process]
        return json.dumps({"app": asdict(self.app), "processes": [asdict(one) for one in processes]})

    def living(self) -> int | None:
        """The pid to name to a person: the supervisor's, else that of a worker that outlived it."""
        return next((one.pid for one in (self.app, *self.processes) if one.lives()), None)


def this_app() -> Identity:
    """The app that this process belongs to."""
    parent = multiprocessing.parent_process()
    app = None if parent is None or parent.pid is None else identity_of(parent.pid)
    return app or this_process()


def this_process() -> Identity:
    me = identity_of(os.getpid())
    if me is None:
        raise EmbeddedError(f"The system tells nothing about process {os.getpid()}; is /proc mounted?")
    return me
