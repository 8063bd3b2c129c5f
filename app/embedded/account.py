"""The account that Postgres runs as when the app is root, because Postgres refuses to run as root.

An existing account is used, and none is created. The child process switches to it between fork and exec.
"""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

from app.embedded.errors import EmbeddedError


@dataclass(frozen=True, slots=True)
class Account:
    """An existing unprivileged user of this machine."""

    name: str
    uid: int
    gid: int

    def can_enter(self, directory: Path) -> bool:
        """Returns whether this user may open files below the directory. Asks the kernel, which also knows ACLs."""
        return self._runs(["/bin/sh", "-c", 'test -x "$1"', "sh", str(directory)])

    def can_run(self, program: Path) -> bool:
        """Returns whether this user can access the program and its libraries."""
        return self._runs([str(program), "--version"])

    def _runs(self, command: list[str]) -> bool:
        try:
            done = subprocess.run(
                command,
                user=self.uid,
                group=self.gid,
                extra_groups=[],
                cwd="/",
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=30,
                check=False,
                start_new_session=True,  # Otherwise Ctrl-C would end it, which would be read as "no".
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0


def postgres_account() -> Account | None:
    """Returns the account to run Postgres as, or None for a plain user, who runs it directly."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedError(
        "Postgres does not run as root, and there is neither a user `postgres` nor `nobody` here. Run as a plain user."
    )
