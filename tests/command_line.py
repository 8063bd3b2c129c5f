"""Runs a `fourways` command in this process, because the imports of a new process take a second or two.

`tests.terminal` tests how a process starts and ends, and what a terminal does with its output.
"""

import asyncio
import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

import pytest

from app.cli import main
from tests.terminal import OURS


async def says(*arguments: str, **environment: str) -> tuple[int, str]:
    """Returns the exit code and the output. Only these variables of ours are set."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    with (
        io.StringIO() as screen,
        patch.object(sys, "argv", ["fourways", *arguments]),
        patch.dict(os.environ, {**inherited, **environment}, clear=True),
        redirect_stdout(screen),
        redirect_stderr(screen),
    ):
        # The command runs its own event loop, so it needs a thread.
        code = await asyncio.to_thread(_code)
        return code, screen.getvalue()


def _code() -> int:
    with pytest.raises(SystemExit) as end:
        main()
    assert isinstance(end.value.code, int)
    return end.value.code
