"""Starting a program as a child that outlives us well and ends with us cleanly."""

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
    """The program, running as the account, with the claim inherited."""
    try:
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[claim.fileno()],
            # Ctrl-C goes to every process of the terminal's foreground group: without a session of their own
            # the servers would be gone while the app still drains into them.
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
    """What a program prints that ends by itself. Raises TimeoutExpired."""
    # As above: Ctrl-C would end it, and what it did not say would be taken for an answer.
    return subprocess.run(
        command, capture_output=True, timeout=seconds, check=False, env=environment, start_new_session=True
    ).stdout


def end(child: subprocess.Popen[bytes]) -> None:
    """A child that nobody has waited for keeps its pid, so the signal cannot reach anybody else."""
    child.terminate()
    try:
        child.wait(10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def plain_environment() -> dict[str, str]:
    """Ours without PGDATA, PGPORT and their like, which would redirect the servers; the locale exists everywhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
    return {**kept, "LC_ALL": "C"}
