"""A command of the lab: run in this process, or in a terminal with servers of its own."""

import re

from typer.testing import CliRunner

from app.lab.commands import lab
from tests.eventually import eventually
from tests.process_tree import ProcessTree
from tests.terminal import Terminal


def run(*arguments: str, stdin: bytes | None = None) -> tuple[int, str, str]:
    """Its exit code, what it printed, and what it complained of."""
    result = CliRunner().invoke(lab, arguments, input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    # Complaints are framed and wrapped.
    return result.exit_code, result.stdout, re.sub(r"[\s│]+", " ", result.stderr)


async def with_its_servers(running: Terminal) -> ProcessTree:
    """Returns when both servers run that a command has started, with it and them."""
    tree = running.tree()

    async def both_run() -> bool:
        nonlocal tree
        tree = running.tree()
        return {"redis-server", "postgres"} <= tree.names()

    await eventually(both_run)
    return tree
