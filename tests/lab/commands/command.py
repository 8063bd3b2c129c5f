"""A lab command, run in this process, or in a terminal with its own servers."""

import re

from typer.testing import CliRunner

from app.lab.commands import lab
from tests.eventually import eventually
from tests.process_tree import ProcessTree
from tests.terminal import Terminal


def run(*arguments: str, stdin: bytes | None = None) -> tuple[int, str, str]:
    """Returns its exit code, its output, and its complaints."""
    result = CliRunner().invoke(lab, arguments, input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    # Complaints are framed and wrapped.
    return result.exit_code, result.stdout, re.sub(r"[\s│]+", " ", result.stderr)


async def with_its_servers(running: Terminal) -> ProcessTree:
    """Returns the process tree when both servers that the command has started are running."""
    tree = running.tree()

    async def both_run() -> bool:
        nonlocal tree
        tree = running.tree()
        return {"redis-server", "postgres"} <= tree.names()

    await eventually(both_run)
    return tree
