"""A command of the lab, run in this process."""

import re

from typer.testing import CliRunner

from app.lab.commands import lab


def run(*arguments: str, stdin: bytes | None = None) -> tuple[int, str, str]:
    """Its exit code, what it printed, and what it complained of."""
    result = CliRunner().invoke(lab, arguments, input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    # Complaints are framed and wrapped.
    return result.exit_code, result.stdout, re.sub(r"[\s│]+", " ", result.stderr)
