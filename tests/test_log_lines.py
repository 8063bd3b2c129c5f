"""The beginning of a log line, and the messages at startup."""

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
async def test_every_log_line_has_time_level_and_logger_in_each_process(
    home: Home, endpoints: Endpoints, command: list[str], processes: int
) -> None:
    """There is no database at its address, so each process logs something when it starts."""
    async with terminal(
        home.screen(), *command, **home.environment, UVICORN_PORT=home.port,
        REDIS_URL=endpoints.redis_url, DATABASE_URL=f"postgresql://postgres@127.0.0.1:{free_port()}/postgres",
    ) as running:  # fmt: skip

        async def all_have_said_it() -> bool:
            return running.screen.count(" WARNING app.main: Not as it should be: postgres: ") == processes

        await eventually(all_have_said_it)
    lines = running.screen.splitlines()
    if command[0] == "fourways":  # It first prints a text for its user.
        lines = lines[next(number for number, line in enumerate(lines) if "/users/1" in line) + 1 :]
        lines = [line for line in lines if line not in ("", "Stopped.")]
    assert len(lines) >= processes
    assert [line for line in lines if not LINE.fullmatch(line)] == []


async def test_a_short_pause_during_a_start_logs_no_warning(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The relay confirms that Redis has all changes · the process pauses, and trust lapses · it reports its state"""

    @asynccontextmanager
    async def stands_still(settings: Settings, metrics: Metrics) -> AsyncIterator[Resources]:
        async with open_resources(settings, metrics) as resources:
            time.sleep(2 * TRUST.total_seconds())  # noqa: ASYNC251  # The whole process pauses.
            assert not resources.cache.trust.held
            yield resources

    monkeypatch.setattr(main, "open_resources", stands_still)
    async with application(settings):
        pass
    assert [line for line in caplog.messages if "breaker" in line] == []
