"""A `fourways` command in this process: what it says needs none of its own, whose imports take a second or two.

How a process begins and ends, and what a terminal does with its words, is looked at with `tests.terminal`.
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
    """Its exit code, and what it printed. No variable is set but these."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    with (
        io.StringIO() as screen,
        patch.object(sys, "argv", ["fourways", *arguments]),
        patch.dict(os.environ, {**inherited, **environment}, clear=True),
        redirect_stdout(screen),
        redirect_stderr(screen),
    ):
        # It has an event loop of its own, for which it needs a thread.
        code = await asyncio.to_thread(_code)
        return code, screen.getvalue()


def _code() -> int:
    with pytest.raises(SystemExit) as end:
        main()
    assert isinstance(end.value.code, int)
    return end.value.code
