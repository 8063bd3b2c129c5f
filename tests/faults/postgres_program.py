"""Runs a program of Postgres, like pg_dump, as the account that runs the server."""

import subprocess
from collections.abc import Sequence

from app.embedded.account import postgres_account
from app.embedded.postgres_install import runnable_install
from app.embedded.spawn import plain_environment
from tests.eventually import PATIENCE


def run_program(program: str, arguments: Sequence[str], given: bytes = b"") -> bytes:
    """Returns the program's output. Raises CalledProcessError when it fails."""
    account = postgres_account()
    done = subprocess.run(
        [runnable_install(account) / "bin" / program, *arguments],
        input=given,
        check=True,
        capture_output=True,
        timeout=PATIENCE,
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else [],
        cwd="/",
        env=plain_environment(),
    )
    return done.stdout
