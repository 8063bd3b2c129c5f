"""How a line of the log begins, and what is said at the start."""

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app import main
from app.caching.trust import TRUST
from app.embedded import Endpoints
from app.metrics import Metrics
from app.settings import Settings
from app.wiring import Resources, open_resources
from tests.eventually import eventually
from tests.home import Home
from tests.in_process import application
from tests.service import free_port
from tests.terminal import terminal

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ [a-z][\w.]*: .+")
COMMANDS = {
    "fourways": (["fourways", "serve", "--workers", "2"], 2),
    "uvicorn": (["uvicorn", "app.main:app"], 1),
}


@pytest.mark.parametrize(("command", "processes"), COMMANDS.values(), ids=COMMANDS)
async def test_every_line_says_when_how_grave_and_who_in_each_process(
    home: Home, endpoints: Endpoints, command: list[str], processes: int
) -> None:
    """Nobody is where the database should be, so each process has something to say when it starts."""
    async with terminal(
        home.screen(), *command, **home.environment, UVICORN_PORT=home.port,
        REDIS_URL=endpoints.redis_url, DATABASE_URL=f"postgresql://postgres@127.0.0.1:{free_port()}/postgres",
    ) as running:  # fmt: skip

        async def all_have_said_it() -> bool:
            return running.screen.count(" WARNING app.main: Not as it should be: postgres: ") == processes

        await eventually(all_have_said_it)
    lines = running.screen.splitlines()
    if command[0] == "fourways":  # What it tells a person first.
        lines = lines[next(number for number, line in enumerate(lines) if "/users/1" in line) + 1 :]
        lines = [line for line in lines if line not in ("", "Stopped.")]
    assert len(lines) >= processes
    assert [line for line in lines if not LINE.fullmatch(line)] == []


async def test_a_start_that_stands_still_for_a_moment_is_no_cause_for_alarm(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The relay finds out that Redis knows everything · the process stands still, and trust lapses · it reports"""

    @asynccontextmanager
    async def stands_still(settings: Settings, metrics: Metrics) -> AsyncIterator[Resources]:
        async with open_resources(settings, metrics) as resources:
            time.sleep(2 * TRUST.total_seconds())  # noqa: ASYNC251  # The whole process stands still.
            assert not resources.cache.trust.held
            yield resources

    monkeypatch.setattr(main, "open_resources", stands_still)
    async with application(settings):
        pass
    assert [line for line in caplog.messages if "breaker" in line] == []
