"""HTTP load from wrk, where it is installed: https://github.com/wg/wrk.

It checks status and length of each answer, by `wrk.lua`. Only our own generator (`load.py`) checks the content. wrk
counts in whole seconds.
"""

import asyncio
import json
import math
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.measurement import Sample, WrongAnswer
from tests.benchmarks.stage import Server, on, processors

if TYPE_CHECKING:
    from tests.benchmarks.load import Ask

SCRIPT = Path(__file__).with_suffix(".lua")


def program() -> str | None:
    """Returns the path of wrk; None when it is not installed."""
    return shutil.which("wrk")


async def drive(program: str, server: Server, asks: "Sequence[Ask]", *, connections: int, turn: timedelta) -> Sample:
    """Sends the requests in turns for the duration of `turn`, and returns the figures. Raises WrongAnswer."""
    seconds = max(1, math.ceil(turn.total_seconds()))
    with tempfile.TemporaryDirectory(prefix="fourways-wrk-") as directory:
        requests = Path(directory) / "requests.lua"
        requests.write_text(_as_lua(asks))
        with on(processors()[1]):
            process = await asyncio.create_subprocess_exec(
                program, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", SCRIPT,
                server.url, "--", requests,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
        before = server.cpu()
        try:
            said, complaint = await process.communicate()
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        cpu = server.cpu() - before
    lines = said.decode().strip().splitlines()
    if process.returncode or not lines or not lines[-1].startswith("{"):
        raise WrongAnswer(f"wrk ended with {process.returncode}: {complaint.decode().strip()}")
    figures = json.loads(lines[-1])
    if figures["wrong"] or not figures["done"]:
        raise WrongAnswer(f"{figures['wrong']} of {figures['done']} answers were wrong: {figures['example']}")
    return Sample(
        figures["done"],
        timedelta(microseconds=figures["microseconds"]),
        cpu,
        timedelta(microseconds=figures["p50"]),
        timedelta(microseconds=figures["p99"]),
    )


def _as_lua(asks: "Sequence[Ask]") -> str:
    """Returns a Lua table of the requests and the allowed body lengths: wrk does not say to which request an answer
    belongs."""
    statuses = {ask.status for ask in asks}
    lengths = sorted({len(ask.body.encode()) for ask in asks})
    if len(statuses) != 1:
        raise ValueError("wrk can only be told of one status.")
    # An open body ends with a number.
    longest = lengths[-1] + (24 if any(ask.open for ask in asks) else 0)
    requests = ",\n".join(
        f"{{{json.dumps(ask.method)}, {json.dumps(ask.path)}, {_quoted(ask.content)}}}" for ask in asks
    )
    return (
        f"return {{status = {statuses.pop()}, shortest = {lengths[0]}, longest = {longest}, requests = {{{requests}}}}}"
    )


def _quoted(text: str) -> str:
    # JSON's escapes are Lua's, except those of characters beyond ASCII.
    return json.dumps(text, ensure_ascii=False)
