"""The account that Postgres runs as when the app is root, because Postgres refuses root.

An existing account is used and nobody is added; its privileges are taken on in the child, between fork and
exec.
"""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

from app.embedded.errors import EmbeddedError


@dataclass(frozen=True, slots=True)
class Account:
    """An existing user of this machine without privileges."""

    name: str
    uid: int
    gid: int

    def can_enter(self, directory: Path) -> bool:
        """Whether this user may open files below the directory; the kernel is asked, for it knows ACLs too."""
        return self._runs(["/bin/sh", "-c", 'test -x "$1"', "sh", str(directory)])

    def can_run(self, program: Path) -> bool:
        """Whether this user reaches the program and its libraries."""
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
                start_new_session=True,  # Ctrl-C would end it, and that would be taken for a no.
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0


def postgres_account() -> Account | None:
    """None for a plain user, who runs Postgres as himself."""
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
