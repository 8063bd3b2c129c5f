"""Starts a program as a child process that survives this process and can be stopped cleanly."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from app.embedded.account import Account
from app.embedded.errors import EmbeddedError


def spawn(
    command: Sequence[str | Path],
    claim: BinaryIO,
    account: Account | None,
    *,
    stdin: int = subprocess.DEVNULL,
    output: BinaryIO | int,
) -> subprocess.Popen[bytes]:
    """Starts the program as the account, with the claim inherited."""
    try:
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[claim.fileno()],
            # Ctrl-C goes to every process in the terminal's foreground group. Without their own session, the servers
            # would be gone while the app is still draining into them.
            start_new_session=True,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
            umask=0o077,
            cwd="/",
            env=plain_environment(),
        )
    except OSError as error:
        raise EmbeddedError(f"{command[0]} cannot be run: {error.strerror}.") from error


def said(command: Sequence[str | Path], seconds: float, environment: Mapping[str, str] | None = None) -> bytes:
    """Returns what a program prints until it ends. Raises TimeoutExpired."""
    # In a new session, as above: Ctrl-C would end it, and incomplete output would be taken for the answer.
    return subprocess.run(
        command, capture_output=True, timeout=seconds, check=False, env=environment, start_new_session=True
    ).stdout


def end(child: subprocess.Popen[bytes]) -> None:
    """Ends a child. Its pid stays assigned until it is waited for, so the signal cannot reach another process."""
    child.terminate()
    try:
        child.wait(10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def plain_environment() -> dict[str, str]:
    """Returns this environment without PGDATA, PGPORT and the like, which would redirect the servers, and with a locale
    that exists everywhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
    return {**kept, "LC_ALL": "C"}
